"""What ``spec`` writes is what runc writes, and what confines really confines."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_ocirun.oci.codec import dump, encode
from pytest_ocirun.oci.runtime import IDMapping, load_config
from pytest_ocirun.runtime import defaults
from pytest_ocirun.runtime.validate import validate
from tests.requires import requires

_BETTER = {"/sys/devices/virtual/powercap"}
"""Masked by newer versions of runc only."""


@requires("runc")
@pytest.mark.parametrize("rootless", [False, True])
def test_spec_is_that_of_runc(rootless: bool, tmp_path: Path) -> None:
    """Property by property, but for version, host name and paths that newer versions mask."""
    subprocess.run(["runc", "spec", *(["--rootless"] if rootless else [])], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_bytes())
    theirs["process"]["capabilities"].pop("ambient", None)  # not inheritable, so the kernel would take none
    ours = encode(defaults.spec(rootless=rootless))
    masks = [document["linux"].pop("maskedPaths") for document in (theirs, json.loads(json.dumps(ours)))]

    assert set(masks[1]) - set(masks[0]) <= _BETTER
    assert set(masks[0]) <= set(masks[1])
    assert _without_names(json.loads(json.dumps(ours))) == _without_names(theirs)


def _without_names(document: dict[str, object]) -> dict[str, object]:
    linux = document["linux"]
    assert isinstance(linux, dict)
    linux.pop("maskedPaths", None)
    return {key: value for key, value in document.items() if key not in ("ociVersion", "hostname")}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the container's root may enter, whose id on the host is another."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@requires("root", "runc", "busybox")
def test_runc_runs_our_spec(open_folder: Path) -> None:
    """Another runtime reads what we write, the filter included."""
    bundle = open_folder / "bundle"
    (bundle / "rootfs" / "bin").mkdir(parents=True)
    for name in ("proc", "sys", "dev"):
        (bundle / "rootfs" / name).mkdir()
    busybox = subprocess.run(["sh", "-c", "command -v busybox"], capture_output=True, text=True, check=True)
    (bundle / "rootfs/bin/busybox").write_bytes(Path(busybox.stdout.strip()).read_bytes())
    (bundle / "rootfs/bin/busybox").chmod(0o755)
    config = defaults.spec()
    defaults.confine(config, [_mapping(100000)], [_mapping(100000)])
    config.process.terminal = False
    config.process.args = ["/bin/busybox", "sh", "-c", "busybox unshare -n true || busybox echo $?; busybox id -u"]
    (bundle / "config.json").write_bytes(dump(config))
    done = subprocess.run(
        ["runc", "--root", str(open_folder / "state"), "run", f"ocirun-test-{os.getpid()}"],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.stdout, done.returncode) == ("1\n0\n", 0), done.stderr


def test_spec_is_valid() -> None:
    """Also for the caller without privilege."""
    assert validate(defaults.spec()) == []
    assert validate(defaults.spec(rootless=True)) == []


def test_specs_share_nothing() -> None:
    """A changed configuration does not change the next."""
    first = defaults.spec()
    first.mounts[1].options.append("x")
    first.linux.masked_paths.clear()
    first.process.env.clear()

    assert encode(defaults.spec()) != encode(first)
    assert defaults.spec().mounts[1].options == ["nosuid", "strictatime", "mode=755", "size=65536k"]


def test_confined_configuration() -> None:
    """No capability in any set, no way to gain one, a filter, and every namespace new."""
    config = defaults.spec()
    defaults.confine(config, [_mapping(100000)], [_mapping(100000)])
    again = load_config(dump(config))

    assert validate(again) == []
    assert again == config
    assert again.process.capabilities is not None
    assert not any(vars(again.process.capabilities).values())
    assert again.process.no_new_privileges
    assert again.root.readonly
    assert again.linux.seccomp is not None
    assert {each.type for each in again.linux.namespaces} == {*defaults.NAMESPACES, "user"}
    assert not any(each.path for each in again.linux.namespaces)


def test_default_devices() -> None:
    """Those that config-linux.md lists, by their real numbers."""
    for device in defaults.default_devices():
        found = os.stat(device.path)

        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (device.major, device.minor)


def _mapping(host: int) -> IDMapping:
    return IDMapping(container_id=0, host_id=host, size=65536)
