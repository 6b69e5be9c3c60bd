"""Archives as Python's tarfile, GNU tar and older tools write them."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_ocirun.errors import ImageError
from pytest_ocirun.images import pax
from pytest_ocirun.images.compression import CHUNK, Unpacker, kind_of
from pytest_ocirun.images.extract import Extractor
from pytest_ocirun.images.limits import Limits
from pytest_ocirun.images.owners import Owners
from pytest_ocirun.images.tarball import Member, Tarball
from tests.requires import requires
from tests.unit.images.tars import END, base256, extended, file, hardlink, header, long_name, symlink

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.lane("rootless", "v2")

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def chunks(data: bytes, size: int = 1000) -> Iterator[bytes]:
    """Odd pieces, as a decompressor gives them."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def members(data: bytes) -> list[tuple[Member, bytes]]:
    """All members with their contents."""
    tarball = Tarball(chunks(data), Limits())
    return [(member, b"".join(map(bytes, tarball.data()))) for member in tarball.members()]


def one(data: bytes) -> Member:
    """The only member."""
    ((member, _),) = members(data + END)
    return member


@pytest.mark.parametrize("name", FORMATS)
def test_every_field_is_read_as_tarfile_writes_it(name: str) -> None:
    """Names and targets around the limits of the old fields, and every kind of file."""
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[name]) as archive:
        for length in (1, 99, 100, 101, 154) if name == "ustar" else (1, 99, 100, 101, 155, 256, 257, 1000):
            path = ("d" * 49 + "/") * (length // 50) + "f" * (length % 50 or 50)
            info = tarfile.TarInfo(path.rstrip("/"))
            info.size, info.mode, info.uid, info.gid, info.mtime = length, 0o4751, 1000, 2**21 - 1, 1234567890
            archive.addfile(info, io.BytesIO(b"x" * length))
            written.append((info.name.encode(), b"x" * length))
    found = members(buffer.getvalue())

    assert [(member.path, content) for member, content in found] == written
    for member, content in found:
        assert (member.kind, member.mode, member.uid, member.gid) == ("file", 0o4751, 1000, 2**21 - 1)
        assert (member.mtime, member.size) == (1234567890 * 10**9, len(content))


def test_large_and_negative_numbers_of_gnu_tar() -> None:
    """Base-256 fields."""
    member = one(header("x", owner=base256(3_000_000_000, 8), mtime=base256(-5, 12)))

    assert (member.uid, member.mtime) == (3_000_000_000, -5 * 10**9)


def test_extended_header_overrides_the_fields() -> None:
    """Fractions of seconds, large ids, names in UTF-8, and an empty value that takes an override back."""
    records = {"path": "näme", "uid": "3000000000", "mtime": "-1.5", "linkpath": "täarget", "gid": ""}
    member = one(extended({"gid": "7", "comment": "x"}, "g") + extended(records) + symlink("short", "t"))

    assert (member.path, member.target) == ("näme".encode(), "täarget".encode())
    assert (member.uid, member.gid, member.mtime) == (3_000_000_000, 0, -1_500_000_000)


def test_global_header_lasts_and_own_header_does_not() -> None:
    """As POSIX says."""
    data = extended({"uid": "7"}, "g") + file("a") + extended({"uid": "8"}) + file("b") + file("c") + END

    assert [member.uid for member, _ in members(data)] == [7, 8, 7]


def test_long_names_of_gnu_tar() -> None:
    """For the member and for its link target."""
    member = one(long_name("n" * 200) + long_name("t" * 200, "K") + symlink("n" * 100, "t" * 100))

    assert (member.path, member.target) == (b"n" * 200, b"t" * 200)


def test_old_archives() -> None:
    """v7 has no magic, a directory is a name with a slash, and some summed signed bytes."""
    assert one(header("old/", "\0", magic=b"")).kind == "directory"
    assert one(header("posix/", "0")).kind == "directory"
    assert one(header("contiguous", "7")).kind == "file"
    block = bytearray(header(b"sign\xff", magic=b""))
    total = sum(struct.unpack("512b", block[:148] + b" " * 8 + block[156:]))
    block[148:156] = b"%06o\0 " % total
    assert one(bytes(block)).path == b"sign\xff"


def test_volume_label_is_no_member() -> None:
    """What tar --label writes."""
    assert [member.path for member, _ in members(header("label", "V") + file("a") + END)] == [b"a"]


def test_names_are_tidied() -> None:
    """Dots and doubled slashes are nothing; bytes that are no UTF-8 are kept."""
    for name, path in {b"./": b"", b"./a//b/./c": b"a/b/c", b"a/": b"a", b"\xff\n": b"\xff\n"}.items():
        assert one(header(name, "5")).path == path


def test_hard_link_target_is_tidied() -> None:
    """As the member was whose name it is."""
    assert one(hardlink("b", "./a")).target == b"a"


@pytest.mark.parametrize(
    "text, expected",
    [(b"1", 10**9), (b"1.5", 1_500_000_000), (b"0.0000000019", 1), (b"-0.5", -500_000_000), (b"-0.0000000001", -1)],
)
def test_times_are_exact(text: bytes, expected: int) -> None:
    """No float in between; rounded to the past."""
    assert pax.nanoseconds(text, "time") == expected


@pytest.mark.parametrize("text", [b"", b".5", b"1e5", b"1_0", b"+1", b" 1", b"1.5.5", b"\xd9\xa1"])
def test_wrong_times_are_refused(text: bytes) -> None:
    """Python's own conversions take most of these."""
    with pytest.raises(ImageError, match="is no time"):
        pax.nanoseconds(text, "time")


def _zstd(data: bytes) -> bytes:
    return zstd.compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": _zstd,
}


def unpacked(path: Path) -> tuple[bytes, str]:
    """The plain bytes and the digest."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with Unpacker(fd) as unpacker:
            data = b"".join(unpacker.chunks())
            return data, unpacker.digest
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", PACKERS)
def test_compression_is_told_by_magic(tmp_path: Path, kind: str) -> None:
    """One member, several, zeros after them, and pieces larger than what is read at once."""
    import hashlib

    data = os.urandom(CHUNK + 77) + bytes(3 * CHUNK)
    pack = PACKERS[kind]
    for content, plain in (
        (pack(data), data),
        (pack(data) + pack(b"more"), data + b"more"),
        (pack(b"") + pack(data) + bytes(1024), data),
    ):
        (tmp_path / "file").write_bytes(content)

        assert kind_of(content[:10]) == kind
        assert unpacked(tmp_path / "file") == (plain, f"sha256:{hashlib.sha256(content).hexdigest()}")


def test_zstd_skippable_frames(tmp_path: Path) -> None:
    """Pzstd and seekable formats put them first, between and last."""
    skippable = struct.pack("<II", 0x184D2A55, 3) + b"abc"
    (tmp_path / "file").write_bytes(skippable + _zstd(b"one") + skippable + _zstd(b"two") + skippable)

    assert unpacked(tmp_path / "file")[0] == b"onetwo"


def test_leaving_early_ends_the_thread(tmp_path: Path) -> None:
    """An error in the middle leaves no thread behind."""
    import threading

    (tmp_path / "file").write_bytes(bytes(100 * CHUNK))
    before = threading.active_count()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with Unpacker(fd) as unpacker:
        assert next(unpacker.chunks()) == bytes(CHUNK)
    os.close(fd)

    assert threading.active_count() == before


def extracted(tar: Path, target: Path) -> Path:
    """The tarball, unpacked as the caller."""
    target.mkdir()
    fd, root = os.open(tar, os.O_RDONLY), os.open(target, os.O_RDONLY)
    try:
        with Unpacker(fd) as unpacker:
            Extractor(root, Owners("caller")).run(Tarball(unpacker.chunks(), Limits()))
    finally:
        os.close(fd)
        os.close(root)
    return target


SPARSE = {
    "old": ["--format=gnu"],
    "pax-0.0": ["--format=pax", "--sparse-version=0.0"],
    "pax-0.1": ["--format=pax", "--sparse-version=0.1"],
    "pax-1.0": ["--format=pax", "--sparse-version=1.0"],
}


@pytest.mark.parametrize("options", SPARSE.values(), ids=SPARSE.keys())
@pytest.mark.parametrize("holes", [1, 3, 100])
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str], holes: int) -> None:
    """Contents, size and holes come back, whatever the format and the length of the map."""
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/sparse").open("wb") as out:
        for number in range(holes):
            out.seek(number * 100_000 + 70_000)
            out.write(b"%d" % number * 1000)
        out.truncate(holes * 100_000 + 1_000_000)
    (tmp_path / "in/plain").write_bytes(b"after")
    subprocess.run(["tar", "-cSf", "t.tar", *options, "-C", "in", "sparse", "plain"], cwd=tmp_path, check=True)
    tree = extracted(tmp_path / "t.tar", tmp_path / "out")

    assert (tree / "sparse").read_bytes() == (tmp_path / "in/sparse").read_bytes()
    assert (tree / "sparse").stat().st_blocks <= (tmp_path / "in/sparse").stat().st_blocks + 64
    assert (tree / "plain").read_bytes() == b"after"


def test_last_member_of_a_name_wins(tmp_path: Path) -> None:
    """As tar -r writes them; also over another kind, and over a directory with contents."""
    data = (
        file("a", b"1") + file("a", b"2") + file("d/x") + file("d", b"3") + file("e") + file("e/y", b"4")[:0]
        + header("e/", "5") + file("e/y", b"5") + symlink("s", "a") + header("s/", "5") + hardlink("a2", "a")
        + file("a", b"6") + END
    )  # fmt: skip
    (tmp_path / "t.tar").write_bytes(data)
    tree = extracted(tmp_path / "t.tar", tmp_path / "out")

    assert {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()} == {
        "a": b"6", "a2": b"2", "d": b"3", "e/y": b"5",
    }  # fmt: skip
    assert (tree / "s").is_dir()
    assert not (tree / "s").is_symlink()


def test_members_below_a_link_land_where_it_leads(tmp_path: Path) -> None:
    """Distributions with /lib -> usr/lib, and absolute links, which mean the image's root."""
    data = header("usr/lib/", "5") + symlink("lib", "usr/lib") + file("lib/a") + symlink("abs", "/usr") + file("abs/b")
    (tmp_path / "t.tar").write_bytes(data + END)
    tree = extracted(tmp_path / "t.tar", tmp_path / "out")

    assert (tree / "usr/lib/a").exists()
    assert (tree / "usr/b").exists()


def test_directories_get_their_modes_and_times_last(tmp_path: Path) -> None:
    """A read-only directory with contents, and its time from before they were made."""
    data = header("ro/", "5", mode=0o555, mtime=1000) + file("ro/in/x", mtime=2000) + header("./", "5", mtime=3000)
    (tmp_path / "t.tar").write_bytes(data + END)
    tree = extracted(tmp_path / "t.tar", tmp_path / "out")

    assert (tree / "ro").stat().st_mode & 0o7777 == 0o555
    assert [int((tree / name).stat().st_mtime) for name in ("ro", "ro/in/x", ".")] == [1000, 2000, 3000]
    assert (tree / "ro/in").stat().st_mode & 0o7777 == 0o755


def test_deep_trees_need_no_deep_stack(tmp_path: Path) -> None:
    """Two thousand levels, made and removed."""
    from pytest_ocirun.images import tree

    data = long_name("d/" * 2000 + "f") + file("short", b"deep") + END
    (tmp_path / "t.tar").write_bytes(data)
    extracted(tmp_path / "t.tar", tmp_path / "out")
    parent = os.open(tmp_path, os.O_RDONLY)
    tree.remove(parent, b"out")
    os.close(parent)

    assert not (tmp_path / "out").exists()


@requires("root")
def test_set_id_bits_capabilities_and_attributes_are_kept(tmp_path: Path) -> None:
    """Chown would clear the first two, were it done last."""
    capability = bytes.fromhex("0100000202000000000000000000000000000000")
    records = {"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.user.näme": b"\xff\0",
               "SCHILY.xattr.security.selinux": b"label"}  # fmt: skip
    data = extended(records) + file("x", b"x", mode=0o6755, owner=b"0000123\0") + END
    (tmp_path / "t.tar").write_bytes(data)
    (tmp_path / "out").mkdir()
    fd, root = os.open(tmp_path / "t.tar", os.O_RDONLY), os.open(tmp_path / "out", os.O_RDONLY)
    with Unpacker(fd) as unpacker:
        counts = Extractor(root, Owners("real")).run(Tarball(unpacker.chunks(), Limits()))
    os.close(fd)
    os.close(root)
    path = tmp_path / "out/x"

    assert path.stat().st_mode & 0o7777 == 0o6755
    assert (path.stat().st_uid, path.stat().st_gid) == (0o123, 0o123)
    assert os.getxattr(path, "security.capability") == capability
    assert os.getxattr(path, "user.näme") == b"\xff\0"
    assert counts.dropped_xattrs == 1


def test_shifted_capability_names_the_shifted_root() -> None:
    """Version 3 of the attribute; version 2 means the host's own root."""
    old = bytes.fromhex("0100000202000000000000000000000000000000")
    new = Owners("shifted", 100000).capability(old)

    assert new == bytes.fromhex("0100000302000000000000000000000000000000") + struct.pack("<I", 100000)
    assert Owners("real").capability(old) == old
    assert Owners("caller").capability(old) is None


def test_shifted_ids_end_where_the_range_ends() -> None:
    """A container has 65536 ids."""
    assert Owners("shifted", 100000).on_disk(65535) == 165535
    with pytest.raises(ImageError, match=r"its owner 65536 is outside of 0\.\.65535"):
        Owners("shifted", 100000).on_disk(65536)
