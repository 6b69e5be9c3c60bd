"""What each verb loads: start-up time is a goal, and what few containers need must not be paid for by all.

The sets are held here and not left to a stopwatch; ``python -m tests.benchmarks verbs`` tells the times.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PACKAGE_PARENT, Cli
from tests.requires import requires

pytestmark = [requires("root", "busybox", "usher"), pytest.mark.lane("v2")]

_SHOW = f"""
import sys
sys.path.append({str(PACKAGE_PARENT)!r})
file = sys.argv.pop(1)
from pytest_ocirun.cli import app
code = app.main(sys.argv[1:])
with open(file, "w") as out:
    out.write("\\n".join(sys.modules))
sys.exit(code)
"""
_HEAVY = {
    "json",
    "re",
    "enum",
    "typing",
    "dataclasses",
    "subprocess",
    "socket",
    "signal",
    "pathlib",
    "logging",
    "argparse",
}
_RARE = """
    cli.staged cli.terminal
    runtime.hooks runtime.hook_plan runtime.hook_points runtime.hook_steps runtime.outside
    runtime.listener runtime.listener_steps runtime.labels runtime.label_plan runtime.tuning runtime.tuning_plan
    runtime.tuning_terms runtime.net_devices runtime.rare_mounts runtime.copy_up runtime.device_nodes runtime.sysctls
    runtime.subids runtime.less_isolation runtime.features runtime.defaults runtime.seccomp_default runtime.pausing
    runtime.stopping runtime.broadcast runtime.members runtime.template runtime.workshop runtime.zygote runtime.order
    runtime.spare runtime.calls runtime.holder runtime.cgroups.systemd
"""
_OF_MAKING = """
    linux.mount linux.sched oci.codec oci.runtime oci.process runtime.plan runtime.spawn runtime.stage runtime.validate
    runtime.record runtime.creation runtime.joining runtime.seccomp runtime.usher runtime.cgroups
"""


def _own(names: str) -> set[str]:
    return {f"pytest_ocirun.{name}" for name in names.split()}


def _loaded(cli: Cli, tmp_path: Path, *args: str) -> set[str]:
    """The modules that a verb has loaded when it is done."""
    file = tmp_path / "modules"
    null = subprocess.DEVNULL
    argv = [sys.executable, "-I", "-S", "-c", _SHOW, str(file), "--root", str(cli.root), *args]
    subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null, cwd=cli.bundle, timeout=30)
    return set(file.read_text(encoding="ascii").split())


@pytest.fixture
def ordinary(cli: Cli) -> Iterator[str]:
    """A created container with nothing rare about it, whose filter has been compiled before."""
    name = cli.new_id()
    cli.write("sleep", "60")
    assert cli.quiet("create", name) == 0
    yield name
    cli("delete", "--force", name)


@pytest.mark.parametrize("verb", ["run", "create", "exec", "state", "list", "kill", "start", "delete"])
def test_no_verb_loads_what_is_rarely_needed(cli: Cli, tmp_path: Path, ordinary: str, verb: str) -> None:
    """Neither heavy modules of Python's nor our own for other containers than this one."""
    again = cli.new_id()
    if verb == "run":
        config = json.loads((cli.bundle / "config.json").read_text())
        config["process"]["args"] = ["true"]
        (cli.bundle / "config.json").write_text(json.dumps(config))
    args = {"run": [again], "create": [again], "exec": [ordinary, "true"], "list": [], "delete": ["--force", ordinary]}
    loaded = _loaded(cli, tmp_path, verb, *args.get(verb, [ordinary]))
    if verb == "create":
        cli.ok("delete", again)

    assert "pytest_ocirun.cli.app" in loaded
    assert loaded & _HEAVY == set()
    assert loaded & _own(_RARE) == set()


@pytest.mark.parametrize("verb", ["state", "list", "kill", "start"])
def test_verbs_that_make_nothing_load_nothing_to_make_it_with(
    cli: Cli, tmp_path: Path, ordinary: str, verb: str
) -> None:
    """Not even ctypes."""
    loaded = _loaded(cli, tmp_path, verb, *([] if verb == "list" else [ordinary]))

    assert loaded & {"ctypes", *_own(_OF_MAKING)} == set()
