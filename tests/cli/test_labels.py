"""Labels of security modules from the command line: exec's options, and the config's properties."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli
from tests.requires import requires

pytestmark = requires("root", "busybox")


def _lacking(module: str) -> None:
    """Skip where the kernel has the module: then the label counts, as tests/integration/test_process.py shows."""
    switch = Path("/sys/module/apparmor/parameters/enabled")
    if module == "apparmor":
        there = switch.exists() and switch.read_text(encoding="ascii").startswith("Y")
    else:
        there = "selinuxfs" in Path("/proc/filesystems").read_text(encoding="ascii").split()
    if there:
        pytest.skip(f"this kernel lacks no {module}")


@pytest.mark.parametrize(
    "module, change, complaint",
    [
        pytest.param(
            "apparmor",
            {"process": {"apparmorProfile": "nosuch"}},
            "$.process.apparmorProfile: AppArmor is not enabled in this kernel",
            marks=pytest.mark.conforms("config: $.process.apparmorProfile"),
        ),
        pytest.param(
            "selinux",
            {"process": {"selinuxLabel": "a:b:c:d"}},
            "$.process.selinuxLabel: SELinux is not enabled in this kernel",
            marks=pytest.mark.conforms("config: $.process.selinuxLabel"),
        ),
        pytest.param(
            "selinux",
            {"linux": {"mountLabel": "a:b:c:d"}},
            "$.linux.mountLabel: SELinux is not enabled in this kernel",
            marks=pytest.mark.conforms("config: $.linux.mountLabel"),
        ),
    ],
)
def test_labels_of_a_config(cli: Cli, module: str, change: dict[str, dict[str, str]], complaint: str) -> None:
    """An error at create that names what the kernel lacks."""
    _lacking(module)

    def edit(config: dict[str, Any]) -> None:
        for part, values in change.items():
            config[part] |= values

    cli.write("true", edit=edit)
    done = cli("run", cli.new_id())

    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"ocirun: {complaint}")


@pytest.mark.parametrize(
    "module, option, complaint",
    [
        pytest.param(
            "apparmor",
            "--apparmor",
            "$.apparmorProfile: AppArmor is not enabled in this kernel",
            marks=pytest.mark.conforms("cli: exec --apparmor"),
        ),
        pytest.param(
            "selinux",
            "--process-label",
            "$.selinuxLabel: SELinux is not enabled in this kernel",
            marks=pytest.mark.conforms("cli: exec --process-label"),
        ),
    ],
)
def test_labels_of_an_exec(cli: Cli, module: str, option: str, complaint: str) -> None:
    """The same for exec."""
    _lacking(module)
    name = cli.running("sleep", "60")
    done = cli("exec", option, "nosuch", name, "true")
    cli("delete", "--force", name)

    assert (done.code, done.out) == (255, "")
    assert done.err.startswith(f"ocirun: {complaint}")
