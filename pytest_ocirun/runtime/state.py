"""The state directory: one directory per container, one document in it, one lock on it.

``ROOT/ID/state.json`` is written by rename under a blocking flock of the directory, so any number of processes may
work on one id. A container's status is never stored: it follows from its init (pid and start time, a zombie counts as
ended), from its cgroup's freezer, and from ``start.sock``, which is there until somebody starts it. Source:
runtime-spec runtime.md "State"; ``paused`` as runc adds it.
"""

from __future__ import annotations

import errno
import fcntl
import os

from pytest_ocirun.errors import ConfigError, ContainerExists, ContainerNotFound, OcirunError, WrongStatus
from pytest_ocirun.linux import proc
from pytest_ocirun.oci import json_text
from pytest_ocirun.runtime.freezer import is_frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
STOPPED = "stopped"

ALIVE = (CREATED, RUNNING, PAUSED)
"""Where there is an init."""

START_SOCKET = "start.sock"
HOST_ROOT = "root"
"""Where the root of a container without a mount namespace is attached, in the host's."""
_TRIES = 100
_STATE = "state.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")
_ID_LENGTH = 1024


def default_root() -> str:
    """Where states lie: /run/ocirun for root, else $XDG_RUNTIME_DIR/ocirun, or below /tmp without one.

    Who is root of a user namespace only (as under podman without root) and does not pose as more by $USER is one of
    the others, as in runc.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    others = runtime.startswith("/") and os.environ.get("USER") != "root" and not proc.in_initial_user_namespace()
    if os.geteuid() == 0 and not others:
        return "/run/ocirun"
    return f"{runtime}/ocirun" if runtime.startswith("/") else f"/tmp/ocirun-{os.geteuid()}"


def check_id(container_id: str) -> None:
    """Refuse ids that runc refuses: they become a path.

    Raises:
        ConfigError: empty, too long, a dot name, or a character outside [A-Za-z0-9_+.-].
    """
    if (
        not container_id
        or len(container_id) > _ID_LENGTH
        or container_id in (".", "..")
        or not _ID_CHARACTERS.issuperset(container_id)
    ):
        raise ConfigError(
            f"invalid container id {container_id!r}",
            hint="An id is made of letters, digits and _ + . - and is not a dot name.",
        )


class Directory:
    """An open, locked container directory.

    Use as a context manager; leaving it unlocks.

    Args:
        root: the state root.
        container_id: a checked id.
        fd: the directory.
    """

    __slots__ = ("fd", "id", "path")

    def __init__(self, root: str, container_id: str, fd: int) -> None:
        self.id = container_id
        self.path = f"{root}/{container_id}"
        self.fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unlock."""
        os.close(self.fd)

    def read(self) -> dict[str, Any]:
        """The stored document; without one the container is still being created."""
        try:
            fd = os.open(_STATE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self.fd)
        except FileNotFoundError:
            return {"id": self.id, "pid": 0, "start_time": 0}
        with os.fdopen(fd, "rb") as file:
            document: dict[str, Any] = json_text.loads(file.read())
        return document

    def write(self, document: dict[str, Any]) -> None:
        """Replace the stored document as one act.

        Raises:
            OcirunError: it cannot be written; the one before stays.
        """
        temporary = f"{_STATE}.new"
        try:
            fd = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
            with os.fdopen(fd, "wb") as file:
                file.write(json_text.dumps(document).encode())
            os.rename(temporary, _STATE, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            hint = "Is the file system of the state root full?" if error.errno in _FULL else None
            raise OcirunError(f"write the state {self.path}/{_STATE}: {error.strerror}", hint=hint) from error

    def status(self, document: dict[str, Any]) -> str:
        """The container's status now."""
        if not document["pid"]:
            return CREATING
        if not proc.is_alive(document["pid"], document["start_time"]):
            return STOPPED
        if is_frozen(document.get("cgroups")):
            return PAUSED
        return CREATED if self.has(START_SOCKET) else RUNNING

    def has(self, name: str) -> bool:
        """Whether the directory holds ``name``."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def make(root: str, container_id: str) -> Directory:
    """Make and lock the directory of a new container.

    Raises:
        ConfigError: a bad id.
        ContainerExists: the id is taken; that container is unharmed.
    """
    check_id(container_id)
    ensure_root(root)
    for _try in range(_TRIES):
        try:
            os.mkdir(f"{root}/{container_id}", 0o700)
            directory = _open_locked(root, container_id)
        except FileExistsError:
            break
        except FileNotFoundError:
            continue  # somebody deleted it before we had the lock
        # Or deleted it and made it anew: whoever first locks an empty directory owns it.
        if not os.listdir(directory.fd):
            return directory
        directory.close()
        break
    raise ContainerExists(
        f"create container {container_id}: container with given ID already exists",
        hint=f"Choose another id, or delete that one: ocirun delete {container_id}",
    )


def open_existing(root: str, container_id: str, *, wait: bool = True) -> Directory:
    """Open and lock the directory of an existing container.

    Args:
        root: the state root.
        container_id: its id.
        wait: for the lock, however long somebody else has it.

    Raises:
        ConfigError: a bad id.
        ContainerNotFound: there is none.
        BlockingIOError: somebody else has the lock, and ``wait`` is false.
        WrongStatus: it is being created, and its hooks may run for long.
    """
    check_id(container_id)
    try:
        return _open_locked(root, container_id, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        raise not_found(root, container_id) from None
    except BlockingIOError:
        if not wait:
            raise
    _refuse_while_hooks_run(root, container_id)
    try:
        return _open_locked(root, container_id)
    except FileNotFoundError:
        raise not_found(root, container_id) from None


def _refuse_while_hooks_run(root: str, container_id: str) -> None:
    """A hook of create that works on its own container would wait for its own end."""
    with look(root, container_id) as directory:
        document = directory.read()
    hooks = document.get("config", {}).get("hooks", {})
    if not document.get("pid") and not hooks.keys().isdisjoint(("prestart", "createRuntime", "createContainer")):
        raise WrongStatus(
            f"use container {container_id}: it is still being created, and its hooks run",
            hint=f"Process {document['maker'][0]} creates it; once that has ended it can be deleted.",
        )


def look(root: str, container_id: str) -> Directory:
    """Open the directory of an existing container without the lock, to read only.

    Raises:
        ConfigError, ContainerNotFound: as ``open_existing``.
    """
    check_id(container_id)
    try:
        return Directory(root, container_id, _open(root, container_id))
    except FileNotFoundError:
        raise not_found(root, container_id) from None


def not_found(root: str, container_id: str) -> ContainerNotFound:
    """The error that says so."""
    return ContainerNotFound(
        f"container does not exist: no container {container_id} below {root}", hint="`ocirun list` shows the others."
    )


def ids(root: str) -> list[str]:
    """Every container id below ``root``, sorted."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if _ID_CHARACTERS.issuperset(name))


def ensure_root(root: str) -> None:
    """Make the state root, and refuse one that others may write to: they could swap what lies in it.

    Raises:
        OcirunError: it belongs to somebody else, is no directory, or cannot be made.
    """
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        found = os.stat(root, follow_symlinks=False)
    except OSError as error:
        hint = "--root names it, or XDG_RUNTIME_DIR where a plain user runs ocirun or pytest."
        raise OcirunError(f"make the state directory {root}: {error.strerror}", hint=hint) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise OcirunError(
            f"use the state directory {root}: it belongs to uid {found.st_uid} with mode {found.st_mode & 0o7777:o}",
            hint="It must be owned by the user who runs ocirun and not be writable by others.",
        )


def _open_locked(root: str, container_id: str, operation: int = fcntl.LOCK_EX) -> Directory:
    fd = _open(root, container_id)
    try:
        fcntl.flock(fd, operation)
        # While we waited, the one before us may have deleted it, and somebody else made it anew.
        if not os.fstat(fd).st_nlink:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), container_id)  # noqa: TRY301
    except BaseException:
        os.close(fd)
        raise
    return Directory(root, container_id, fd)


def _open(root: str, container_id: str) -> int:
    return os.open(f"{root}/{container_id}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
