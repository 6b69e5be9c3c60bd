"""Hooks under the library: the client of a zygote runs those of the runtime itself."""

import json
from pathlib import Path

import pytest

from pytest_ocirun.errors import HookFailed
from pytest_ocirun.oci.runtime import Hook
from tests.boxes import Bare, confined
from tests.requires import requires

pytestmark = [requires("userns"), pytest.mark.lane("v2")]


def _script(text: str) -> Hook:
    return Hook(path="/bin/sh", args=["sh", "-c", text], env=["PATH=/bin:/usr/bin"])


@pytest.mark.parametrize("start", [False, True])
def test_a_zygotes_container_has_its_hooks(bare: Bare, busybox_rootfs: Path, tmp_path: Path, *, start: bool) -> None:
    """Also when it starts by itself; in the client's namespaces, which the zygote has left."""
    config = confined(busybox_rootfs, "sleep", "60")
    for name in ("prestart", "create_runtime", "poststart", "poststop"):
        script = f"echo {name} $(readlink /proc/self/ns/mnt) >> {tmp_path}/log; cat > {tmp_path}/{name}"
        getattr(config.hooks, name).append(_script(script))
    name = bare.new_id()
    child = bare.create(config, name=name, start=start)
    if not start:
        bare.runtime.start(name)
    pid = child.pid
    bare.end(name, child)
    own = Path("/proc/self/ns/mnt").readlink()

    assert (tmp_path / "log").read_text().splitlines() == [
        f"{name} {own}" for name in ("prestart", "create_runtime", "poststart", "poststop")
    ]
    assert json.loads((tmp_path / "create_runtime").read_text())["pid"] == pid


@pytest.mark.parametrize("kind", ["prestart", "create_runtime", "poststart"])
def test_a_hook_that_fails_leaves_nothing(bare: Bare, busybox_rootfs: Path, tmp_path: Path, kind: str) -> None:
    """The error is the hook's, the id is free again, and poststop hooks have run."""
    config = confined(busybox_rootfs, "sleep", "60")
    getattr(config.hooks, kind).append(_script("echo no; exit 1"))
    config.hooks.poststop.append(_script(f"echo stopped >> {tmp_path}/log"))
    name = bare.new_id()
    with pytest.raises(HookFailed, match=r"^\$.hooks.\w+\[0\]: /bin/sh: exit status 1: no$"):
        bare.create(config, name=name, start=True)

    assert not (bare.root / name).exists()
    assert (tmp_path / "log").read_text() == "stopped\n"
