"""The image configuration of the OCI image specification 1.1, as typed documents.

Responsible for: the names and types of its properties. Must not know: layers' content, manifests, nor what a
container makes of it. Annotations are evaluated here, so their evaluation must not be postponed.
"""

from pytest_ocirun.oci.codec import Document, field, load


class Nothing(Document):
    """The empty object that stands for a member of a set in ``ExposedPorts`` and ``Volumes``."""


class Execution(
    Document,
    names={
        "user": "User",
        "exposed_ports": "ExposedPorts",
        "env": "Env",
        "entrypoint": "Entrypoint",
        "cmd": "Cmd",
        "volumes": "Volumes",
        "working_dir": "WorkingDir",
        "labels": "Labels",
        "stop_signal": "StopSignal",
        "shell": "Shell",
    },
):
    """What to run if nobody says otherwise.

    ``user`` is ``NAME|UID[:GROUP|GID]``, a key of ``exposed_ports`` ``80/tcp``.
    """

    user: str = ""
    exposed_ports: dict[str, Nothing] = field(factory=dict)
    env: list[str] = field(factory=list)
    entrypoint: list[str] = field(factory=list)
    cmd: list[str] = field(factory=list)
    volumes: dict[str, Nothing] = field(factory=dict)
    working_dir: str = ""
    labels: dict[str, str] = field(factory=dict)
    stop_signal: str = ""
    shell: list[str] = field(factory=list)

    def args(self) -> list[str]:
        """Return the whole default command: entry point and its arguments."""
        return [*self.entrypoint, *self.cmd]


class RootFS(Document, names={"diff_ids": "diff_ids"}):
    """The digests of the layers' uncompressed content, the lowest first."""

    type: str
    diff_ids: list[str] = field(factory=list)


class ImageConfig(Document, names={"os_version": "os.version"}):
    """An image's configuration; what only tells its history is left out."""

    architecture: str
    os: str
    os_version: str = ""
    variant: str = ""
    config: Execution = field(factory=Execution)
    rootfs: RootFS


def load_image(text: bytes, name: str) -> ImageConfig:
    """Decode an image configuration.

    Args:
        text: the blob.
        name: what to call it in messages.

    Raises:
        ConfigError: the text is no such document; the message names the blob and the place.
    """
    return load(ImageConfig, text, name)
