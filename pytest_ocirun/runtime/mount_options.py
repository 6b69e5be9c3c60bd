"""The options of a mount: which words there are, and what a list of them asks for.

Pure. Must not know which kinds of mount take which option (``mount_plan``, ``validate_mounts``).

Sources: runtime-spec 1.3.0 config-linux "Linux mount options"; mount(8); mount_setattr(2); what runc takes. A word that
is none of these belongs to the file system: it goes to fsconfig(2), which also knows ``sync``, ``dirsync``,
``lazytime``, ``mand`` and their opposites.
"""

from __future__ import annotations

from pytest_ocirun.linux import mount as m

ATTRIBUTES = {
    "ro": (m.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, m.MOUNT_ATTR_RDONLY),
    "nosuid": (m.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, m.MOUNT_ATTR_NOSUID),
    "nodev": (m.MOUNT_ATTR_NODEV, 0),
    "dev": (0, m.MOUNT_ATTR_NODEV),
    "noexec": (m.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, m.MOUNT_ATTR_NOEXEC),
    "noatime": (m.MOUNT_ATTR_NOATIME, m.MOUNT_ATTR__ATIME),
    "atime": (0, m.MOUNT_ATTR__ATIME),
    "relatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "norelatime": (0, 0),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, m.MOUNT_ATTR__ATIME),
    "nostrictatime": (m.MOUNT_ATTR_RELATIME, m.MOUNT_ATTR__ATIME),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, m.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, m.MOUNT_ATTR_NOSYMFOLLOW),
}
"""Word -> (attributes to set, attributes to clear); with an ``r`` before it, of the whole tree of mounts.

Without ``norelatime`` the kernel's own choice is relatime too, so that word changes nothing.
"""

PROPAGATIONS = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}

SILENT = ("defaults", "silent", "loud", "noiversion")
"""Words that change nothing: versions are counted only when asked for, and the kernel's log is the error's text."""

SUPERBLOCK = ("async", "dirsync", "iversion", "lazytime", "mand", "nolazytime", "nomand", "sync")
"""Words that every file system takes as its own data; ``iversion`` only from mount(2)."""

REFUSED = ("copy-symlink", "src-nofollow", "dest-nofollow")
"""Options of other runtimes that would be mistaken for a file system's."""


def known_options() -> list[str]:
    """Every option that has a meaning here, sorted; what else is given goes to the file system."""
    recursive = [f"r{name}" for name in ATTRIBUTES]
    others = ("bind", "rbind", "idmap", "ridmap", "remount", "tmpcopyup")
    return sorted({*ATTRIBUTES, *recursive, *PROPAGATIONS, *SILENT, *SUPERBLOCK, *others})


class Options:
    """What the options of one mount ask for; of two that contradict each other the last one holds.

    Args:
        options: as the config lists them.

    Attributes:
        set: MOUNT_ATTR_* to set.
        clear: MOUNT_ATTR_* to clear before that.
        tree: (set, clear) for the mount and every mount below it, done after the two above.
        propagation: MS_* flags, to be applied one after another.
        bind: it is a bind; ``recursive`` says whether of a tree.
        idmap: ``idmap``, ``ridmap`` or nothing.
        copy_up: a new tmpfs begins with what was at its place.
        remount: change the mount that is there.
        data: what the file system is told.
    """

    __slots__ = ("bind", "clear", "copy_up", "data", "idmap", "propagation", "recursive", "remount", "set", "tree")

    def __init__(self, options: list[str]) -> None:
        self.set = self.clear = 0
        self.tree = (0, 0)
        self.propagation: list[int] = []
        self.bind = self.recursive = self.copy_up = self.remount = False
        self.idmap = ""
        self.data: dict[str, str | None] = {}
        for option in options:
            self._add(option)

    def _add(self, option: str) -> None:
        if option in ATTRIBUTES:
            self.set, self.clear = _with(self.set, self.clear, option)
        elif option in PROPAGATIONS:
            self.propagation.append(PROPAGATIONS[option])
        elif option in ("bind", "rbind"):
            self.bind, self.recursive = True, option == "rbind"
        elif option[:1] == "r" and option[1:] in ATTRIBUTES:
            self.tree = _with(*self.tree, option[1:])
        elif option in ("idmap", "ridmap"):
            self.idmap = option
        elif option == "tmpcopyup":
            self.copy_up = True
        elif option == "remount":
            self.remount = True
        elif option and option not in SILENT:
            key, equals, value = option.partition("=")
            self.data[key] = value if equals else None

    def parameters(self) -> dict[str, str | None]:
        """The data as mount(2) reads it: commas part parameters, unless something in a word is quoted or escaped."""
        found: dict[str, str | None] = {}
        for name, value in self.data.items():
            if value is None or "," not in value or '"' in value or "\\" in value:
                found[name] = value
                continue
            first, *others = value.split(",")
            found[name] = first
            pairs = (other.partition("=") for other in others)
            found |= {key: text if equals else None for key, equals, text in pairs}
        return found


def _with(added: int, cleared: int, word: str) -> tuple[int, int]:
    to_set, to_clear = ATTRIBUTES[word]
    if word == "nostrictatime" and added & m.MOUNT_ATTR_NOATIME:
        return added, cleared  # there is nothing strict to take back
    return added & ~to_clear | to_set, cleared | to_clear
