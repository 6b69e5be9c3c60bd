"""What a guest says is believed only as the one well-formed answer to what was asked."""

import pytest

from tests.plugin.conftest import Runner

_FIND_WIRE = """
import gc, os, pytest

def wire():
    return next(one for one in gc.get_objects() if type(one).__name__ == "Channel")
"""
_REPORT = """{"when": "call", "outcome": "passed", "longrepr": None, "sections": [], "duration": 0.0, "start": 0.0,
"stop": 0.0, "location": ["x", 1, "x"], "keywords": [], "properties": [], "wasxfail": None}"""


@pytest.mark.parametrize(
    "message, cause",
    [
        ('{"type": "report", "index": 0, "report": REPORT}', "a report where the report of call was due"),
        ('{"type": "report", "index": 1, "report": dict(REPORT, outcome="splendid")}', "report.report.outcome"),
        ('{"type": "report", "index": 1, "report": dict(REPORT, _id="x")}', "report.report: expected an object"),
        ('{"type": "report", "index": 7, "report": REPORT}', "a report of a test that is not running"),
        ('{"type": "done", "index": 1}', "a done where the report of call was due"),
        ('{"type": "ended", "exit": 0, "signal": None, "breach": None}', "a message of no known type"),
        ('{"type": "collected", "nodes": [], "session": None, "usage": []}', "a test that is not running"),
        ('{"type": ["report"]}', "a message of no known type"),
    ],
)
def test_forged_message_costs_its_own_test(pytester: pytest.Pytester, inside: Runner, message: str, cause: str) -> None:
    """Wrong phase, value, key, index or type: the test that said it fails, its siblings do not."""
    message = message.replace('"index": 0', '"index": 1') if "was due" in cause else message
    body = message.replace(
        "REPORT", "dict(" + _REPORT.replace("\n", " ") + ', when="teardown")' if "report of call" in cause else _REPORT
    )
    pytester.makepyfile(
        _FIND_WIRE
        + f"""
def test_before(): pass
def test_forger():
    wire().send({body})
def test_after(): pass
"""
    )

    outcome = inside("-v")

    outcome.has("::test_before PASSED", "::test_forger FAILED", "::test_after PASSED", "it broke the protocol", cause)


def test_second_report_is_red(pytester: pytest.Pytester, inside: Runner) -> None:
    """A test that reports itself passed and goes on is a failure, whatever it says then."""
    pytester.makepyfile(
        _FIND_WIRE
        + f"""
def test_forger():
    wire().send({{"type": "report", "index": 0, "report": {_REPORT}}})
    assert 0
"""
    )

    outcome = inside("-v")

    outcome.has("::test_forger ERROR", "it broke the protocol")
    assert outcome.status == 1


def test_conftest_cannot_flip_results_of_another_file(pytester: pytest.Pytester, inside: Runner) -> None:
    """Its hooks run in every container, on that container's own tests only; a mark put on all is visible as such."""
    package = pytester.mkdir("suspect")
    (package / "conftest.py").write_text(
        "import pytest\n"
        "@pytest.hookimpl(hookwrapper=True)\n"
        "def pytest_runtest_makereport(item, call):\n"
        "    outcome = yield\n"
        "    outcome.get_result().outcome = 'passed'\n"
    )
    (package / "test_suspect.py").write_text("def test_suspect(): pass")
    pytester.makepyfile(test_trusted="def test_trusted(): assert 0")

    inside("-v").has("test_trusted FAILED")


def test_control_characters_are_written_out(pytester: pytest.Pytester, inside: Runner) -> None:
    """A terminal shows what a test printed, and obeys none of it."""
    pytester.makepyfile(
        "def test_it():\n    print('\\x1b[2J\\u202egnp.exe\\udc80')\n    assert 0, '\\x1b]0;title\\x07'"
    )

    outcome = inside()

    outcome.has("\\x1b]0;title\\x07", "\\x1b[2J\\u202egnp.exe")
    assert "\x1b" not in outcome.raw


def test_protocol_noise_from_the_outside_of_the_wire(pytester: pytest.Pytester, inside: Runner) -> None:
    """Bytes that are no frame end the guest."""
    pytester.makepyfile(
        _FIND_WIRE + "\ndef test_it():\n    wire()._sock.sendall(b'\\xff' * 64)\n    import time; time.sleep(5)\n"
    )

    inside("-v").has("::test_it FAILED", "it broke the protocol")
