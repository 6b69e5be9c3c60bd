"""The ids that an administrator lets a plain user map, and the set-uid programs that map them.

Only who stands outside a user namespace may map more than the own id into it, and only by newuidmap(1) and
newgidmap(1). So somebody is left outside before the namespace is made. Loaded only when a config wants such ids. Must
not know containers. Sources: subuid(5), newuidmap(1), user_namespaces(7).
"""

from __future__ import annotations

import os

from pytest_ocirun.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
PROGRAMS = {"uid": "newuidmap", "gid": "newgidmap"}
_PLACES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
_MOST_TEXT = 4096

Rows = list[tuple[int, int, int]]


def wanted(config: object, uid: int, gid: int) -> bool:
    """Whether a ``config.json``, decoded but not checked, maps other ids than the caller's own.

    Args:
        config: as JSON has it.
        uid: the caller's.
        gid: the caller's.
    """
    linux = config.get("linux") if isinstance(config, dict) else None
    for key, own in (("uidMappings", uid), ("gidMappings", gid)):
        rows = linux.get(key) if isinstance(linux, dict) else None
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and (row.get("hostID"), row.get("size")) != (own, 1):
                return True
    return False


class Mapper:
    """A process that stays outside of a user namespace to map ids into it.

    Args:
        uid: the caller's, which becomes 0.
        gid: the caller's, which becomes 0.

    Raises:
        Unsupported: a program is missing, or the user has no ids.
    """

    def __init__(self, uid: int, gid: int) -> None:
        commands = [_command(kind, own, uid) for kind, own in (("uid", uid), ("gid", gid))]
        for_it, go = os.pipe2(os.O_CLOEXEC)
        self._answer, answer = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            os.close(go)
            _work(os.getppid(), commands, for_it, answer)
        self._go = go
        os.close(for_it)
        os.close(answer)

    def finish(self) -> None:
        """Have the ids mapped, now that this process is in its new user namespace.

        Raises:
            Unsupported: a program refused; the message is its own.
        """
        os.write(self._go, b"g")
        os.close(self._go)
        text = os.read(self._answer, _MOST_TEXT).decode("utf-8", "replace").strip()
        os.close(self._answer)
        _pid, status = os.waitpid(self._pid, 0)
        if status:
            raise Unsupported(f"map the ids of the user: {text or 'the process that does it was killed'}", hint=_HINT)


_HINT = f"More ids than one's own take newuidmap, newgidmap, and lines in {FILES['uid']} and {FILES['gid']}."


def _command(kind: str, own: int, uid: int) -> list[str]:
    """The argv that maps the own id to 0 and every range of the user behind it; the pid is to be put at 1."""
    name = PROGRAMS[kind]
    program = next((f"{place}/{name}" for place in _PLACES if os.access(f"{place}/{name}", os.X_OK)), None)
    if program is None:
        raise Unsupported(f"map the ids of the user: there is no {name}", hint=_HINT)
    try:
        with open(FILES[kind], encoding="utf-8") as file:
            found = ranges(file.read(), uid, _name(uid))
    except OSError as error:
        raise Unsupported(f"map the ids of the user: {FILES[kind]}: {error.strerror}", hint=_HINT) from error
    if not found:
        raise Unsupported(f"map the ids of the user: {FILES[kind]} has no line for uid {uid}", hint=_HINT)
    words = ["0", str(own), "1"]
    inside = 1
    for first, count in found:
        words += [str(inside), str(first), str(count)]
        inside += count
    return [program, "", *words]


def ranges(text: str, uid: int, name: str) -> list[tuple[int, int]]:
    """The (first, count) ranges that a subuid(5) file gives to a user; neighbours become one.

    Args:
        text: the file's content; lines that make no sense are left out, as newuidmap does.
        uid: the user.
        name: the user's name, or empty.
    """
    found: list[tuple[int, int]] = []
    for line in text.splitlines():
        owner, _, numbers = line.strip().partition(":")
        start, _, size = numbers.partition(":")
        if owner in (str(uid), name or None) and start.isdigit() and size.isdigit() and int(size):
            found.append((int(start), int(size)))
    merged: list[tuple[int, int]] = []
    for first, count in sorted(set(found)):
        if merged and sum(merged[-1]) == first:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        elif not merged or sum(merged[-1]) < first:
            merged.append((first, count))
    return merged


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _work(pid: int, commands: list[list[str]], for_it: int, answer: int) -> NoReturn:
    """Run the programs when told; what they say goes to ``answer``."""
    code = 1
    try:
        if os.read(for_it, 1):
            for program, _pid, *words in commands:
                actions = [(os.POSIX_SPAWN_DUP2, answer, 1), (os.POSIX_SPAWN_DUP2, answer, 2)]
                child = os.posix_spawn(program, [program, str(pid), *words], {}, file_actions=actions)
                if os.waitpid(child, 0)[1]:
                    break
            else:
                code = 0
    except OSError as error:
        os.write(answer, str(error).encode())
    finally:
        os._exit(code)
