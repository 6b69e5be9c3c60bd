"""Options of a mount that take another one back."""

from pathlib import Path

import pytest

from pytest_ocirun.oci.runtime import Mount
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("userns", "overlay", "seccomp", "busybox"), pytest.mark.lane("v2")]

BACK = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "diratime": "nodiratime",
    "symfollow": "nosymfollow",
    "atime": "noatime",
    "relatime": "noatime",
    "nostrictatime": "strictatime",
}
"""Word -> the one that it takes back."""
TIMES = {"atime": "relatime", "relatime": "relatime", "nostrictatime": "relatime"}
"""How the kernel shows those of access times."""


@pytest.mark.conforms(*(f"config: $.mounts[].options {r}{word}" for word in BACK for r in ("", "r")))
@pytest.mark.parametrize("r", ["", "r"])
def test_of_two_opposites_the_last_counts(bare: Bare, busybox_rootfs: Path, r: str) -> None:
    """On a new file system, each pair in both orders."""
    mounts = []
    for word, other in BACK.items():
        for path, options in ((f"/mnt/{word}", [r + other, r + word]), (f"/mnt/not-{word}", [r + word, r + other])):
            mounts.append(Mount(destination=path, type="tmpfs", source="tmpfs", options=options))
    out = bare.run(confined(busybox_rootfs, "cat", "/proc/self/mountinfo", mounts=mounts)).out
    seen = {line.split()[4]: set(line.split()[5].split(",")) for line in out.splitlines()}

    for word, other in BACK.items():
        shown = {other} - {"strictatime"}  # it is what is shown by neither of the other two
        assert not shown & seen[f"/mnt/{word}"], word
        assert shown <= seen[f"/mnt/not-{word}"], word
        assert word not in TIMES or TIMES[word] in seen[f"/mnt/{word}"], word
        assert other != "strictatime" or not {"relatime", "noatime"} & seen[f"/mnt/not-{word}"]


@pytest.mark.conforms(*(f"config: $.mounts[].options {word}" for word in ("defaults", "norelatime", "rnorelatime")))
@pytest.mark.parametrize("word", ["defaults", "norelatime", "rnorelatime"])
def test_words_that_ask_for_nothing(bare: Bare, busybox_rootfs: Path, word: str) -> None:
    """The mount is as it would be without."""
    mounts = [
        Mount(destination=f"/mnt/{number}", type="tmpfs", source="tmpfs", options=options)
        for number, options in enumerate(([], [word], ["noexec"], ["noexec", word]))
    ]
    out = bare.run(confined(busybox_rootfs, "cat", "/proc/self/mountinfo", mounts=mounts)).out
    shown = [line.split()[5] for line in out.splitlines() if "/mnt/" in line]

    assert shown[0] == shown[1] != shown[2] == shown[3]
