"""Hostile and damaged tarballs: each is one clear error, leaves nothing, and writes nothing outside.

Named after the failures of other extractors that notes and advisories tell of.
"""

import bz2
import gzip
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images.limits import Limits
from pytest_ocirun.images.open import open_image
from pytest_ocirun.images.store import Store
from tests.requires import requires
from tests.unit.images.tars import (
    BLOCK,
    END,
    ROOT,
    base256,
    directory,
    extended,
    file,
    hardlink,
    header,
    long_name,
    octal,
    padded,
    record,
    symlink,
)

pytestmark = pytest.mark.lane("rootless", "v2")

BASE = 100000
ESCAPE = "../" * 20


class Ground:
    """A store, a place for tarballs, and a canary beside them that nothing may touch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "file").write_text("alive")

    def write(self, content: bytes) -> Path:
        """The content as a tarball."""
        path = self.folder / "image.tar"
        path.write_bytes(content)
        return path

    def refused(self, content: bytes, limits: Limits | None = None) -> str:
        """Open the tarball, see that it is refused and that nothing is left; the message."""
        path = self.write(content)
        before = sorted(self.folder.rglob("*"))
        with pytest.raises(ImageError) as caught:
            open_image(self.store, str(path), shift_base=BASE, limits=limits)
        message = caught.value.message

        assert message.startswith(f"image {path}: ")
        assert "\n" not in message
        left = set(self.folder.rglob("*")) - set(before)
        assert {thing for thing in left if thing.parent.name not in {"locks", "store"}} == set()
        assert (self.canary / "file").read_text() == "alive"
        assert os.listdir(self.canary) == ["file"]
        return message.removeprefix(f"image {path}: ")


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A fresh ground; in the end the host's own files are as they were."""
    watched = [Path(path) for path in ("/", "/etc", "/tmp") if os.path.isdir(path)]
    before = {path: path.stat().st_mtime_ns for path in watched if path != Path("/tmp")}
    yield Ground(tmp_path)

    assert {path: path.stat().st_mtime_ns for path in before} == before


NAMES = {
    "dotdot": (file(f"{ESCAPE}canary-dotdot"), "its name has a '..' in it"),
    "dotdot_inside": (file("etc/../../canary"), "its name has a '..' in it"),
    "absolute": (file("/etc/ocirun-canary"), "its name is absolute"),
    "absolute_pax": (extended({"path": "/etc/ocirun-canary"}) + file("fine"), "its name is absolute"),
    "dotdot_gnu": (long_name(f"{ESCAPE}canary") + file("fine"), "its name has a '..' in it"),
    "dotdot_pax_after_gnu": (
        long_name("fine") + extended({"path": f"{ESCAPE}canary"}) + file("fine"),
        "its name has a '..' in it",
    ),
    "dotdot_prefix": (header("canary", tail=b"../../etc"), "its name has a '..' in it"),
    "nul_in_pax_name": (extended({"path": b"a\0b"}) + file("fine"), "its name has a NUL byte"),
    "long_path": (long_name("a/" * 3000) + file("fine"), "its name is longer than 4095 bytes"),
    "long_component": (long_name("a" * 300) + file("fine"), "File name too long"),
    "root_is_a_link": (symlink(".", "/etc"), "the root is a symlink"),
    "root_is_a_file": (file("./.", b"x"), "the root is a file"),
}


@pytest.mark.parametrize("member, why", NAMES.values(), ids=NAMES.keys())
def test_names_that_lead_out_are_refused(ground: Ground, member: bytes, why: str) -> None:
    """CVE-2007-4559, CVE-2016-6321, CVE-2021-29136: the member is named, and why."""
    message = ground.refused(ROOT + member + END)

    assert why in message
    assert "member '" in message


def test_link_out_of_the_root_is_not_written_through(ground: Ground) -> None:
    """CVE-2025-45582, CVE-2014-6407: a link to a directory of the host leads to nothing inside."""
    link = symlink("out", str(ground.canary))

    assert "leads to nothing inside the image" in ground.refused(ROOT + link + file("out/file", b"dead") + END)
    assert "leads to nothing inside the image" in ground.refused(ROOT + link + directory("out/new") + END)
    assert "leads to nothing inside the image" in ground.refused(ROOT + link + directory("out/new/deep/er") + END)


@pytest.mark.parametrize("target", ["{canary}/file", ESCAPE + "{canary}/file"])
def test_link_in_the_place_of_a_file_is_replaced(ground: Ground, target: str) -> None:
    """A file over a link does not write to where the link leads."""
    link = symlink("etc/shadow", target.format(canary=ground.canary))
    path = ground.write(ROOT + link + file("etc/shadow", b"new") + END)
    with open_image(ground.store, str(path), shift_base=BASE) as image:
        assert (image.rootfs / "etc/shadow").read_bytes() == b"new"
    assert (ground.canary / "file").read_text() == "alive"


def test_chain_of_links_stays_inside(ground: Ground) -> None:
    """CVE-2025-4517, CVE-2025-4330: a chain that climbs above the root ends at the root."""
    chain = symlink("a", "../../..") + symlink("b", "a/../..") + symlink("c", "b/../../" + ESCAPE)
    path = ground.write(ROOT + chain + file("c/landed", b"here") + END)
    with open_image(ground.store, str(path), shift_base=BASE) as image:
        assert (image.rootfs / "landed").read_bytes() == b"here"


def test_magic_link_is_not_followed(ground: Ground) -> None:
    """/proc/self/root inside an archive is a name like any other."""
    link = symlink("p", "/proc/self/root")

    assert "leads to nothing" in ground.refused(ROOT + link + file(f"p{ground.canary}/new", b"dead") + END)


def test_link_loop_is_refused(ground: Ground) -> None:
    """Links that lead to each other are no directory."""
    loop = symlink("a", "b") + symlink("b", "a")

    assert "Too many levels of symbolic links" in ground.refused(ROOT + loop + file("a/x", b"") + END)


HARDLINKS = {
    "dotdot": (hardlink("passwd", f"{ESCAPE}etc/passwd"), "its hard link's target has a '..' in it"),
    "absolute": (hardlink("passwd", "/etc/passwd"), "its hard link's target is absolute"),
    "missing": (hardlink("passwd", "etc/passwd"), "no member before it made 'etc/passwd'"),
    "missing_directory": (hardlink("passwd", "none/passwd"), "no member before it made 'none/passwd'"),
    "through_a_link": (
        symlink("host", "/etc") + hardlink("x", "host/passwd"),
        "no member before it made 'host/passwd'",
    ),
    "to_a_directory": (hardlink("x", "etc"), "a directory"),
    "empty": (hardlink("x", ""), "its link target is empty"),
    "to_itself": (hardlink("x", "x"), "no member before it made 'x'"),
    "with_contents": (header("x", "1", link="etc/os-release", size=3) + padded(b"abc"), "3 bytes of contents"),
}


@pytest.mark.parametrize("member, why", HARDLINKS.values(), ids=HARDLINKS.keys())
def test_hard_links_to_the_outside_are_refused(ground: Ground, member: bytes, why: str) -> None:
    """Tarfile's filters link the host's /etc/passwd; a link's contents would be hidden members to some."""
    assert why in ground.refused(ROOT + member + END)


def test_hard_link_to_a_symbolic_link_links_the_link(ground: Ground) -> None:
    """CVE-2018-20834: what the link points to is neither linked nor opened."""
    members = symlink("s", str(ground.canary / "file")) + hardlink("h", "s") + file("h", b"new")
    path = ground.write(ROOT + members + END)
    with open_image(ground.store, str(path), shift_base=BASE) as image:
        assert os.readlink(image.rootfs / "s") == str(ground.canary / "file")
        assert (image.rootfs / "h").read_bytes() == b"new"
    assert (ground.canary / "file").read_text() == "alive"


def test_stale_parents_are_not_used(ground: Ground) -> None:
    """CVE-2021-32803: what became a link, and what was one, is looked up anew."""
    members = (
        directory("d") + file("d/one", b"1") + symlink("d", "etc") + file("d/two", b"2")
        + symlink("l", ".") + file("l/three", b"3") + directory("l/l") + file("l/four", b"4")
    )  # fmt: skip
    path = ground.write(ROOT + members + END)
    with open_image(ground.store, str(path), shift_base=BASE) as image:
        assert (image.rootfs / "etc/two").read_bytes() == b"2"
        assert (image.rootfs / "three").read_bytes() == b"3"
        assert (image.rootfs / "l/four").read_bytes() == b"4"
        assert not (image.rootfs / "etc/one").exists()


DEVICES = {
    "disk": (header("disk", "4", device=(8, 0)), "block device 8:0"),
    "memory": (header("dev/mem", "3", device=(1, 1)), "char device 1:1"),
    "whiteout": (header("gone", "3", device=(0, 0)), "char device 0:0"),
    "null_as_a_block_device": (header("dev/null", "4", device=(1, 3)), "block device 1:3"),
    "huge": (header("x", "3", device=(0o7777777, 0o7777777)), "char device 2097151:2097151"),
}


@pytest.mark.parametrize("member, why", DEVICES.values(), ids=DEVICES.keys())
def test_device_nodes_are_refused(ground: Ground, member: bytes, why: str) -> None:
    """An image could reach the host's disk by one of its own; only /dev/null and its like are harmless."""
    assert why in ground.refused(ROOT + member + END)


NUMBERS = {
    "size_larger_than_the_file": (header("x", size=10**9), "truncated"),
    "size_of_exabytes": (header("x", size=base256(2**62, 12)), "truncated"),
    "size_over_63_bits": (header("x", size=base256(2**70, 12)), "is out of range"),
    "size_negative": (header("x", size=base256(-512, 12)), "its size -512 is out of range"),
    "size_negative_pax": (extended({"size": "-512"}) + header("x"), "its size -512 is out of range"),
    "size_no_number": (header("x", size=b"12345678912 "), "its size is no number"),
    "size_with_a_sign": (header("x", size=b"+0000000010\0"), "its size is no number"),
    "size_pax_no_number": (extended({"size": "1_0"}) + file("x", b"1"), "its size is no whole number"),
    "size_pax_hides_members": (extended({"size": "1024"}) + file("x", b"1" * 512) + file("y"), "truncated"),
    "owner_over_32_bits": (header("x", owner=base256(2**32, 8)), "its owner 4294967296 is outside"),
    "owner_minus_one": (extended({"uid": "-1"}) + file("x"), "its owner -1 is outside"),
    "owner_nobody_at_all": (extended({"gid": str(2**32 - 1)}) + file("x"), "its owner 4294967295 is outside"),
    "time_out_of_range": (header("x", mtime=base256(2**70, 12)), "its modification time"),
    "directory_with_contents": (header("d/", "5", size=512) + file("hidden"), "512 bytes of contents"),
    "unknown_type": (header("x", "Z"), "it is of the unknown type 'Z'"),
    "multi_volume": (header("x", "M", size=0), "from another volume"),
}


@pytest.mark.parametrize("member, why", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_out_of_range_are_refused(ground: Ground, member: bytes, why: str) -> None:
    """CVE-2025-8194, CVE-2019-20907, CVE-2025-62518: no loop, no overflow, no second reading."""
    assert why in ground.refused(ROOT + member + (END if "truncated" not in why else b""))


EXTENDED = {
    "length_zero": (b"0 a=b\n", "malformed"),
    "length_too_long": (b"999 path=x\n", "malformed"),
    "length_huge": (b"99999999999999999999 path=x\n", "has no length"),
    "length_missing": (b"path=x\n", "has no length"),
    "no_equals": (b"7 path\n", "malformed"),
    "no_newline": (b"8 path=x", "malformed"),
    "empty_key": (record("", "x"), "malformed"),
}


@pytest.mark.parametrize("data, why", EXTENDED.values(), ids=EXTENDED.keys())
def test_malformed_extended_headers_are_refused(ground: Ground, data: bytes, why: str) -> None:
    """CVE-2019-20907: a record of length zero ended nowhere."""
    bad = header("pax", "x", size=len(data)) + padded(data)

    assert why in ground.refused(ROOT + bad + file("x") + END)


SEQUENCES = {
    "two_pax": (extended({"path": "a"}) * 2 + file("x"), "two pax headers"),
    "two_long_names": (long_name("a") * 2 + file("x"), "two long names"),
    "pax_at_the_end": (extended({"path": "a"}), "ends after an extended header"),
    "pax_too_large": (header("pax", "x", size=2**30), "1048576 are allowed"),
    "global_path": (extended({"path": "a"}, "g") + file("x"), "its global header sets 'path'"),
    "global_size": (extended({"size": "0"}, "g") + file("x", b"hidden"), "its global header sets 'size'"),
    "global_xattr": (extended({"SCHILY.xattr.user.a": "b"}, "g"), "its global header sets"),
}


@pytest.mark.parametrize("members, why", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_odd_sequences_of_headers_are_refused(ground: Ground, members: bytes, why: str) -> None:
    """What readers could understand in two ways is not understood in either."""
    assert why in ground.refused(ROOT + members + END)


def test_flood_of_global_headers_is_refused(ground: Ground) -> None:
    """CVE-2020-1702: memory stays bounded."""
    flood = b"".join(extended({f"key{number}": "x" * 1000}, "g") for number in range(1100))

    assert "its global headers are too large" in ground.refused(ROOT + flood + END)


def test_limits_are_kept(ground: Ground) -> None:
    """More members, bytes or compression than allowed end the unpacking."""
    many = b"".join(file(f"etc/{number}") for number in range(100))

    assert "more than 50 members" in ground.refused(ROOT + many + END, Limits(members=50))
    assert "more bytes than an image may have" in ground.refused(
        gzip.compress(ROOT + file("etc/big", bytes(10**7)) + END), Limits(bytes=10**6)
    )


@pytest.mark.slow
def test_decompression_bomb_is_refused(ground: Ground) -> None:
    """CVE-2017-14992: a file that unpacks to a thousand times its size is stopped."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(ROOT + header("etc/zeros", size=2**30))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(1024)]
    bomb = b"".join((*parts, packer.compress(END), packer.flush()))

    assert "a decompression bomb" in ground.refused(bomb)


XATTRS = {
    "trusted": ("trusted.overlay.opaque", "'trusted.overlay.opaque' would act on the overlay"),
    "user_overlay": ("user.overlay.redirect", "'user.overlay.redirect' would act on the overlay"),
}


@pytest.mark.parametrize("name, why", XATTRS.values(), ids=XATTRS.keys())
def test_forged_overlay_state_is_refused(ground: Ground, name: str, why: str) -> None:
    """A layer's attributes could make the overlay show other files."""
    for member in (file("etc/x"), directory("etc/d")):
        assert why in ground.refused(ROOT + extended({f"SCHILY.xattr.{name}": "y"}) + member + END)


@requires("root")
def test_malformed_capability_is_refused(ground: Ground) -> None:
    """A security.capability of a length that the kernel does not know."""
    bad = extended({"SCHILY.xattr.security.capability": b"\1\0\0\2"})

    assert "security.capability is malformed" in ground.refused(ROOT + bad + file("etc/x") + END)


SPARSE = {
    "overlap": ({"GNU.sparse.map": "0,10,5,10", "GNU.sparse.size": "100"}, "out of order"),
    "beyond_the_end": ({"GNU.sparse.map": "90,20", "GNU.sparse.size": "100"}, "does not fit its size"),
    "more_than_stored": ({"GNU.sparse.map": "0,19", "GNU.sparse.size": "100"}, "does not fit its size"),
    "negative": ({"GNU.sparse.map": "0,-20", "GNU.sparse.size": "100"}, "out of order"),
    "odd": ({"GNU.sparse.map": "0,20,30", "GNU.sparse.size": "100"}, "an offset without a length"),
    "no_size": ({"GNU.sparse.map": "0,20"}, "has no size"),
    "unknown_version": ({"GNU.sparse.major": "2"}, "format is unknown"),
    "exabytes": ({"GNU.sparse.map": "0,20", "GNU.sparse.size": str(2**62)}, "File too large"),
    "over_63_bits": ({"GNU.sparse.map": "0,20", "GNU.sparse.size": str(2**70)}, "does not fit its size"),
}


@pytest.mark.parametrize("records, why", SPARSE.values(), ids=SPARSE.keys())
def test_wrong_sparse_maps_are_refused(ground: Ground, records: dict[str, str], why: str) -> None:
    """A sparse file's map is checked before anything is written."""
    assert why in ground.refused(ROOT + extended(records) + file("etc/x", b"x" * 20) + END)


def test_endless_sparse_map_is_refused(ground: Ground) -> None:
    """A map in the data that announces more extents than the data has, and one that never ends."""
    start = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    announced = ROOT + extended(start) + file("x", b"99999999999999999999\n") + END
    old = header("x", "S", magic=b"ustar  \0", tail=bytes(137) + b"\1")

    assert "truncated or too large" in ground.refused(announced)
    assert "truncated or too large" in ground.refused(ROOT + old + (bytes(504) + b"\1" + bytes(7)) * 3000)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.fixture(params=[*PACKERS, "zstd", "plain"])
def packed(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """A good tarball of every kind of compression."""
    good = ROOT + file("etc/random", os.urandom(100_000)) + file("etc/last", b"last") + END
    if request.param == "plain":
        return "plain", good
    if request.param == "zstd":
        zstd = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
        options = {zstd.CompressionParameter.checksum_flag: 1}
        return "zstd", zstd.compress(good, options=options)
    return request.param, PACKERS[request.param](good)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_truncation_is_seen_anywhere(ground: Ground, packed: tuple[str, bytes], kept: float) -> None:
    """A tarball cut short is never taken for a shorter one."""
    kind, content = packed
    size = len(content) if kind != "plain" else len(content) - len(END)
    message = ground.refused(content[: int(size * kept)])

    assert "truncated" in message or "it is no tar archive" in message


def test_damage_is_seen(ground: Ground, packed: tuple[str, bytes]) -> None:
    """A flipped bit in the middle of compressed data fails its checksum; in a plain header, that one's."""
    kind, content = packed
    if kind == "plain":
        where = content.index(b"etc/last")
        why = "its checksum is wrong"
    else:
        where = len(content) // 2
        why = f"its {kind} data is damaged"
    bad = content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]

    assert why in ground.refused(bad)


def test_wrong_crc_at_the_end_is_seen(ground: Ground) -> None:
    """Tarfile takes a gzip file whose CRC is wrong."""
    good = gzip.compress(ROOT + END)
    bad = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]

    assert "its gzip data is damaged: " in ground.refused(bad)


def test_garbage_after_the_end_is_seen(ground: Ground, packed: tuple[str, bytes]) -> None:
    """What follows could be meant for another reader."""
    kind, content = packed
    message = ground.refused(content + b"garbage, long enough to be anything")

    assert message == ("garbage follows the end mark of the archive" if kind == "plain"
                       else f"garbage follows the end of its {kind} data")  # fmt: skip


def test_another_archive_after_the_end_is_seen(ground: Ground) -> None:
    """Tar -A without -i hides the second archive from most readers."""
    twice = ROOT + END + file("hidden", b"x") + END

    assert ground.refused(twice) == "garbage follows the end mark of the archive"
    assert ground.refused(gzip.compress(ROOT + END) + gzip.compress(file("hidden") + END)).startswith("garbage")


def test_missing_end_mark_is_seen(ground: Ground) -> None:
    """An archive cut exactly between two members looks complete but for its end mark."""
    assert "without its end mark" in ground.refused(ROOT)
    assert "in the middle of a header" in ground.refused(ROOT + file("x")[: BLOCK // 2])


NO_ARCHIVES = {
    "empty": (b"", "it is no tar archive"),
    "text": (b"hello world\n" * 100, "it is no tar archive (nor one packed with"),
    "zeros": (bytes(10240), "it is no root file system"),
    "gzip_magic_only": (b"\x1f\x8b\x08", "truncated"),
    "zstd_magic_only": (b"\x28\xb5\x2f\xfd", "truncated"),
    "xz_magic_only": (b"\xfd7zXZ\0", "truncated"),
    "bzip2_magic_only": (b"BZh91AY&SY", "truncated"),
    "gzip_of_text": (gzip.compress(b"hello world\n" * 100), "it is no tar archive"),
    "gzip_of_nothing": (gzip.compress(b""), "it is no tar archive"),
    "gzip_of_gzip": (gzip.compress(gzip.compress(ROOT + END)), "it is no tar archive"),
    "no_root": (directory("project-1.0/") + file("project-1.0/README") + END, "it is no root file system"),
    "docker_archive": (file("manifest.json", b"[]") + END, "it is a docker archive, which cannot be used yet"),
    "oci_archive": (file("oci-layout", b"{}") + END, "it is an OCI layout, which cannot be used yet"),
}


@pytest.mark.parametrize("content, why", NO_ARCHIVES.values(), ids=NO_ARCHIVES.keys())
def test_what_is_no_root_file_system_is_refused(ground: Ground, content: bytes, why: str) -> None:
    """CVE-2021-20291: nothing hangs on a file that only begins like one."""
    path = ground.write(content)
    with pytest.raises(Exception, match=r"image /") as caught:
        open_image(ground.store, str(path), shift_base=BASE)

    assert why in str(caught.value)
    assert os.listdir(ground.store.path / "entries") == []
    assert os.listdir(ground.store.path / "tmp") == []


def test_absurdly_many_compressed_members_are_refused(ground: Ground) -> None:
    """Empty members cost nothing to send and much to read."""
    assert "absurdly many tiny pieces" in ground.refused(gzip.compress(b"") * 5000)


def test_octal_digits_only(ground: Ground) -> None:
    """Python's int() takes more than a header may have."""
    for wrong in (b"0o777  \0", b"7_7    \0", b"-7     \0", b"888    \0"):
        assert "is no number" in ground.refused(ROOT + header("x", owner=wrong) + END)
    assert len(octal(8, 8)) == 8
