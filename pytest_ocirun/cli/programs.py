"""Running another program of the host and taking what it prints. Must not know: which, and why."""

from __future__ import annotations

import os

from pytest_ocirun.errors import OcirunError


def output_of(argv: list[str]) -> str:
    """What a program prints, on both outputs.

    Raises:
        OcirunError: it is not there, or failed; with what it printed.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        files = [(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, write, 2)]
        pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=files)
    except OSError as error:
        os.close(read)
        raise OcirunError(f"run {argv[0]}: {error.strerror}", hint=f"Is {argv[0]} installed?") from error
    finally:
        os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="backslashreplace") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        raise OcirunError(f"run {' '.join(argv)}: {how}: {text.strip()}")
    return text


def find(name: str) -> str | None:
    """Where a program is, by PATH and the places where only root looks; None if it is nowhere."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return next((found for place in path.split(":") if os.access(found := f"{place}/{name}", os.X_OK)), None)
