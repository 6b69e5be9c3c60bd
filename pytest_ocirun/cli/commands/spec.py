"""``ocirun spec``: a config.json to start from."""

from __future__ import annotations

import os

from pytest_ocirun.cli.options import Option, Verb
from pytest_ocirun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pytest_ocirun.cli.options import Given
    from pytest_ocirun.cli.report import Journal
    from pytest_ocirun.cli.settings import Settings

VERB = Verb(
    "spec",
    "",
    "write a config.json to start from",
    Option("bundle", "directory to write to, by default the current one", short="b", value="DIR"),
    Option("rootless", "for a container of the calling user, without root's help"),
    least=0,
    most=0,
)


def run(given: Given, _settings: Settings, _journal: Journal) -> int:
    """Write it; an existing one is left as it is."""
    from pytest_ocirun.oci.codec import encode
    from pytest_ocirun.oci.json_text import indented
    from pytest_ocirun.runtime import defaults

    path = os.path.join(given.text("bundle", "."), "config.json")
    text = indented(encode(defaults.spec(rootless=given.on("rootless"))), "\t")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        raise ConfigError(f"write {path}: file exists", hint="Remove it first, or give another --bundle.") from None
    except OSError as error:
        raise ConfigError(f"write {path}: {error.strerror}") from error
    return 0
