"""Options, ini keys and where the tests run; what is wrong is a usage error that names option and value."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.plugin.conftest import LOADED, Runner, weaker

_WHERE = "import os\ndef test_where(): assert os.path.exists('/.ocirun')"


@pytest.mark.parametrize(
    "option, message",
    [
        ("--ocirun-memory=lots", "--ocirun-memory: 'lots' is not a size; write it as 512m or 2g"),
        ("--ocirun-memory=1m", "--ocirun-memory: '1m' is not enough; the least is 16m"),
        ("--ocirun-pids=none", "--ocirun-pids: 'none' is not a positive whole number"),
        ("--ocirun-cpus=0", "--ocirun-cpus: '0' is not a positive number of processors"),
        ("--ocirun-disk=1g", "--ocirun-disk: '1g' must be below the memory limit, which is 1g"),
        ("--ocirun-timeout=soon", "--ocirun-timeout: 'soon' is not a positive number of seconds"),
        ("--ocirun-timeout=nan", "--ocirun-timeout: 'nan' is not a positive number of seconds"),
        ("--ocirun-output=1g", "--ocirun-output: '1g' is too much"),
        ("--ocirun-scope=galaxy", "--ocirun-scope: 'galaxy' is not function or class or module"),
        ("--ocirun-scope=function", "--ocirun-scope: 'function' is not supported yet"),
        ("--ocirun-tree=shrub", "--ocirun-tree: 'shrub' is not overlay or ro"),
        ("--ocirun-run=outside", "--ocirun-run: 'outside' is not inside or host"),
        ("--ocirun-mount=/etc", "--ocirun-mount: '/etc' is not SRC:DST[:ro|rw] with an absolute DST"),
        ("--ocirun-mount=/etc:/proc/x", "--ocirun-mount: '/etc:/proc/x' is not a destination that may be mounted on"),
        ("--ocirun-mount=/no/such:/x", "there is no /no/such on this host"),
        ("--ocirun-env=1X=2", "--ocirun-env: '1X=2' is not NAME or NAME=VALUE"),
        ("--ocirun-env=NOT_SET_HERE", "--ocirun-env: 'NOT_SET_HERE' is not set on this host"),
        ("--ocirun-args='", '--ocirun-args: "\'" cannot be split into words'),
        ("--ocirun-require=magic", "'magic'"),
        ("--ocirun-image=second", "--ocirun-image: one image at a time is supported yet"),
        ("-s", "-s does not work for tests inside containers"),
        ("--pdb", "--pdb does not work for tests inside containers"),
        ("--setup-show", "--setup-show does not work for tests inside containers"),
        ("--pyargs", "--pyargs does not work for tests inside containers: give the tests as paths"),
    ],
)
def test_wrong_option_is_a_usage_error(pytester: pytest.Pytester, inside: Runner, option: str, message: str) -> None:
    """Exit status 4, the option, the value, what would be right."""
    pytester.makepyfile(_WHERE)

    outcome = inside(option)

    outcome.has(message)
    assert outcome.status == pytest.ExitCode.USAGE_ERROR
    assert "Traceback" not in outcome.raw


def test_command_line_image_moves_tests_inside(pytester: pytest.Pytester, plain: Runner, inside: Runner) -> None:
    """The header says where they run."""
    pytester.makepyfile(_WHERE)

    assert plain().status == 1
    inside().has("ocirun: tests run inside containers of host", "1 passed")


def test_ini_image_leaves_tests_on_the_host(pytester: pytest.Pytester, plain: Runner) -> None:
    """It is for the fixture only, unless ocirun_run says otherwise."""
    pytester.makepyfile(_WHERE)
    pytester.makeini("[pytest]\nocirun_image = host\n")

    plain().has("ocirun: tests run on this host", "1 failed")
    assert plain("--ocirun-run=inside", *weaker()).status == 0
    pytester.makeini("[pytest]\nocirun_image = host\nocirun_run = inside\nocirun_memory = 300m\n")
    plain(*weaker()).has("containers of host, one per file; memory 300m", "1 passed")
    plain("--ocirun-run=host").has("1 failed")


def test_contradiction_is_an_error(pytester: pytest.Pytester, inside: Runner) -> None:
    """Whoever types an image expects isolation: an ini file does not quietly take it away."""
    pytester.makepyfile(_WHERE)
    pytester.makeini("[pytest]\nocirun_run = host\n")

    outcome = inside()

    outcome.has("--ocirun-image host asks to run the tests inside, the ini file says ocirun_run = host")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR


def test_inside_without_image(pytester: pytest.Pytester, plain: Runner) -> None:
    """There is no image that one could guess."""
    pytester.makepyfile(_WHERE)

    outcome = plain("--ocirun-run=inside")

    outcome.has("of which image is not said", "--ocirun-image host needs no image at all")
    assert outcome.status == pytest.ExitCode.USAGE_ERROR


def test_image_that_is_none(pytester: pytest.Pytester, plain: Runner) -> None:
    """A missing file and a file that is no tarball: a usage error, no traceback."""
    pytester.makepyfile(_WHERE)
    (pytester.path / "text.tar").write_text("not a tarball")

    for image in ("missing.tar", "text.tar"):
        outcome = plain(f"--ocirun-image={image}")
        outcome.has(image)
        assert outcome.status == pytest.ExitCode.USAGE_ERROR
        assert "Traceback" not in outcome.raw


def test_turned_off(pytester: pytest.Pytester) -> None:
    """`-p no:ocirun` leaves no option behind, so a typed image cannot be overlooked."""
    pytester.makepyfile(_WHERE)

    outcome = pytester.run(sys.executable, "-P", "-m", "pytest", "-p", "no:ocirun", "--ocirun-image", "host")

    outcome.stderr.fnmatch_lines("*unrecognized arguments: --ocirun-image*")


def test_mounts_and_variables(pytester: pytest.Pytester, inside: Runner) -> None:
    """A mount is read-only unless it says rw; a variable comes with its value."""
    shared = pytester.mkdir("shared")
    (shared / "given").write_text("from the host")
    pytester.makepyfile(
        """
        import os, pytest
        def test_it():
            assert open("/ro/given").read() == "from the host"
            assert os.environ["COLOUR"] == "blue=green"
            with pytest.raises(OSError): open("/ro/new", "w")
            open("/rw/new", "w").write("from inside")
        """
    )
    mounts = (f"--ocirun-mount={shared}:/ro", f"--ocirun-mount={shared}:/rw:rw", "--ocirun-env=COLOUR=blue=green")

    outcome = inside(*mounts)

    assert outcome.status == 0, outcome.raw
    assert (shared / "new").read_text() == "from inside"


def test_hooks_are_called(
    pytester: pytest.Pytester, inside: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A plugin of the host may change the guest's arguments, and hears of deaths."""
    plugins = tmp_path_factory.mktemp("plugins")
    monkeypatch.setenv("PYTHONPATH", str(plugins), prepend=os.pathsep)
    (plugins / "hooked.py").write_text(
        "def pytest_ocirun_guest_arguments(args):\n"
        "    del args[args.index('hooked') - 1 : args.index('hooked') + 1]\n"
        "    args.append('--tb=line')\n"
        "def pytest_ocirun_guest_died(nodeid, cause):\n"
        f"    open({str(plugins / 'heard')!r}, 'a').write(nodeid + ' ' + cause)\n"
    )
    pytester.makepyfile("import os\ndef test_it(): os._exit(5)\ndef test_other():\n    unseen = 1\n    assert 0")

    outcome = inside("-p", "hooked", "-rA")

    heard = (plugins / "heard").read_text()
    assert heard == "test_hooks_are_called.py::test_it it exited with status 5"
    assert "unseen" not in outcome.raw


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A plugin that interrupts a test after a second, unless pytest-timeout's hook says that there is a timer."""
    plugins = tmp_path_factory.mktemp("alarm")
    monkeypatch.setenv("PYTHONPATH", str(plugins), prepend=os.pathsep)
    (plugins / "alarm_clock.py").write_text(
        "import pytest, signal, sys\n"
        "class Specs:\n"
        "    @pytest.hookspec(firstresult=True)\n"
        "    def pytest_timeout_set_timer(self, item, settings): pass\n"
        "def pytest_addhooks(pluginmanager): pluginmanager.add_hookspecs(Specs)\n"
        "def pytest_ocirun_guest_arguments(args):\n"
        "    del args[args.index('alarm_clock') - 1 : args.index('alarm_clock') + 1]\n"
        "def rung(number, frame): pytest.fail('it rang')\n"
        "@pytest.hookimpl(wrapper=True)\n"
        "def pytest_runtest_call(item):\n"
        "    signal.signal(signal.SIGALRM, rung)\n"
        "    if item.name == 'test_cut_off' or not item.ihook.pytest_timeout_set_timer(item=item, settings=None):\n"
        "        signal.alarm(1)\n"
        "    yield\n"
        "    signal.alarm(0)\n"
    )
    return "alarm_clock"


def test_alarms_of_other_plugins(pytester: pytest.Pytester, inside: Runner, alarm: str) -> None:
    """pytest-timeout has nothing to cut off on the host; what cuts off our wait costs that one test."""
    pytester.makepyfile(
        "import time\ndef test_long(): time.sleep(1.5)\ndef test_cut_off(): time.sleep(20)\ndef test_c(): pass"
    )

    outcome = inside("-p", alarm)

    outcome.has("it rang", "1 failed, 2 passed")
    assert "it broke the protocol:" not in outcome.raw


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_end_of_the_host_ends_the_guests(pytester: pytest.Pytester, plain: Runner, number: int) -> None:
    """Ctrl-C ends cleanly and without a farewell; SIGKILL leaves no process either."""
    pytester.makepyfile("import subprocess\ndef test_it(): subprocess.run(['sleep', '98764.25'])")
    command = [sys.executable, "-P", "-m", "pytest", *LOADED, "--ocirun-image", "host", *weaker()]

    def hear() -> None:  # where the suite runs in the background, SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=pytester.path,
        stdout=pipe,
        text=True,
        preexec_fn=hear,  # noqa: PLW1509
    ) as running:
        _wait(lambda: _sleepers() == 1)
        running.send_signal(number)
        output, _ = running.communicate(timeout=4)

    _wait(lambda: _sleepers() == 0)
    if number == signal.SIGINT:
        assert running.returncode == pytest.ExitCode.INTERRUPTED
        assert "KeyboardInterrupt" in output


def _sleepers() -> int:
    found = subprocess.run(["pgrep", "-c", "-f", "^sleep 98764[.]25"], capture_output=True, text=True, check=False)
    return int(found.stdout)


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
