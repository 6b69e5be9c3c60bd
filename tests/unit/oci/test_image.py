"""The image configuration decodes what Docker, BuildKit and umoci write."""

import json

import pytest

from pytest_ocirun.errors import ConfigError
from pytest_ocirun.oci.codec import encode
from pytest_ocirun.oci.image import load_image

DOCUMENT = {
    "created": "2026-01-01T00:00:00Z",
    "architecture": "arm",
    "variant": "v7",
    "os": "linux",
    "os.version": "6",
    "config": {
        "User": "1000:nobody",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/entry", "-x"],
        "Cmd": ["serve"],
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "Labels": {"a.b": "c"},
        "StopSignal": "SIGINT",
        "Shell": ["/bin/sh", "-c"],
    },
    "rootfs": {"type": "layers", "diff_ids": ["sha256:aa", "sha256:bb"]},
    "history": [{"created_by": "x"}],
}


def test_full_document() -> None:
    """All but history and date is kept."""
    image = load_image(json.dumps(DOCUMENT).encode(), "blob")

    assert encode(image) == {key: value for key, value in DOCUMENT.items() if key not in ("created", "history")}
    assert image.config.args() == ["/entry", "-x", "serve"]


def test_null_lists() -> None:
    """Docker writes null where it means none."""
    config = {"Cmd": None, "Entrypoint": None, "Env": None, "Volumes": None, "Labels": None}
    image = load_image(json.dumps({**DOCUMENT, "config": config}).encode(), "blob")

    assert image.config.args() == []
    assert image.config.labels == {}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"config": {"Cmd": "sh"}}, '$.config.Cmd: expected array, got string "sh"'),
        ({"config": {"Env": [1]}}, "$.config.Env[0]: expected string, got integer 1"),
        ({"config": {"Volumes": {"/x": 1}}}, '$.config.Volumes["/x"]: expected object, got integer 1'),
        ({"rootfs": None}, "$.rootfs: required, but missing"),
        ({"os": None}, "$.os: required, but missing"),
    ],
)
def test_mistake_is_named(change: dict[str, object], message: str) -> None:
    """With the blob's name and the path."""
    with pytest.raises(ConfigError) as caught:
        load_image(json.dumps({**DOCUMENT, **change}).encode(), "blob")

    assert str(caught.value) == f"cannot read blob: {message}"
