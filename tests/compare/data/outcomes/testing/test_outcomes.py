import os
import sys
import logging
import threading
import unittest
import warnings

import pytest

from outcomes import half


def test_passes():
    print("on stdout")
    print("on stderr", file=sys.stderr)
    logging.getLogger("a.b").warning("logged %s", 1)


def test_fails():
    print("on stdout")
    print("on stderr", file=sys.stderr)
    logging.getLogger("a.b").error("logged %s", 2)
    numbers = {"a": [1, 2, 3], "b": "x" * 200}
    assert numbers == {"a": [1, 2, 4], "b": "x" * 199 + "y"}


def test_raises_deeper():
    half(3)


def test_raises_from():
    try:
        half(3)
    except ValueError as error:
        raise KeyError("no half") from error


def test_plain_message():
    pytest.fail("no traceback", pytrace=False)


def test_message():
    assert half(4) == 3, "half of 4\nis not 3 – ½"


def test_exits():
    sys.exit(3)


def test_did_not_raise():
    with pytest.raises(ValueError, match="odd"):
        half(2)


def test_setup_error(breaks_before):
    pass


def test_teardown_error(breaks_after):
    print("during")


def test_failure_and_teardown_error(breaks_after):
    assert breaks_after == 2


def test_unknown_fixture(nowhere):
    pass


@pytest.mark.skip
def test_skip_without_reason():
    pass


@pytest.mark.skip(reason="marked")
def test_skip():
    pass


@pytest.mark.skipif(sys.version_info > (3,), reason="too new: ½")
def test_skipif():
    pass


@pytest.mark.skipif("sys.version_info > (3,)")
def test_skipif_string():
    pass


def test_skip_inside():
    pytest.skip("inside")


def test_skip_in_fixture(absent):
    pass


def test_importorskip():
    pytest.importorskip("no_such_module")


@pytest.mark.xfail
def test_xfail_without_reason():
    assert not 1


@pytest.mark.xfail(reason="known")
def test_xfail():
    print("printed by an xfail")
    assert half(4) == 3


@pytest.mark.xfail(reason="known")
def test_xpass():
    pass


@pytest.mark.xfail(reason="known", strict=True)
def test_xpass_strict():
    pass


@pytest.mark.xfail(reason="known", raises=KeyError)
def test_xfail_by_another():
    half(3)


@pytest.mark.xfail(reason="known", run=False)
def test_xfail_not_run():
    os._exit(9)


@pytest.mark.xfail(reason="known")
def test_xfail_in_setup(breaks_before):
    pass


@pytest.mark.xfail(reason="known")
def test_xfail_in_teardown(breaks_after):
    assert 0


def test_xfail_inside():
    pytest.xfail("imperative")


def test_marked_by_conftest():
    assert 0


@pytest.mark.parametrize(
    "value", [1, 2.5, None, True, "", "a b", "a/b", "a::b", "[x]", "½", "\n", b"\xff", "x" * 300, object]
)
def test_ids(value):
    assert value is not True


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(1, id="one"),
        pytest.param(2, marks=pytest.mark.skip("second")),
        pytest.param(3, marks=pytest.mark.xfail),
    ],
)
@pytest.mark.parametrize("other", "ab")
def test_marked_ids(value, other):
    assert value != 3


@pytest.mark.parametrize("value", [])
def test_no_ids(value):
    pass


def test_session(whole, record_property):
    record_property("whole", whole)
    assert whole != "second"


class TestClass:
    @pytest.fixture(autouse=True, scope="class")
    def ready(self):
        print("ready")
        yield
        print("done")

    def test_one(self):
        print("one")

    @pytest.mark.mild
    def test_two(self):
        assert 0

    class TestInner:
        def test_three(self):
            pass


class TestWithInit:
    def __init__(self):
        pass

    def test_never(self):
        pass


class TestUnit(unittest.TestCase):
    def test_equal(self):
        self.assertEqual([1, 2], [1, 3])

    @unittest.skip("by unittest")
    def test_skipped(self):
        pass

    @unittest.expectedFailure
    def test_expected(self):
        self.fail("expected")

    @unittest.expectedFailure
    def test_unexpected(self):
        pass

    def test_cleanup(self):
        self.addCleanup(self.fail, "in a cleanup")


class TestUnitSetup(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise unittest.SkipTest("the whole class")

    def test_never(self):
        pass


def test_warns():
    warnings.warn("in a test", DeprecationWarning)
    warnings.warn("in a test, too", UserWarning, stacklevel=2)


def test_warns_in_fixture(warns):
    pass


def test_returns():
    return 1


async def test_asynchronous():
    pass


def test_thread_dies():
    thread = threading.Thread(target=half, args=(3,), name="halver")
    thread.start()
    thread.join()


def test_bytes():
    os.write(1, b"raw \xff\xfe \x1b[31mred\x1b[0m \x00 end\r\n")
    os.write(2, "½\n".encode())
    assert 0


def test_surrogate():
    assert "\udcff" == "x"


def test_much_output():
    print("line\n" * 20000)
    assert 0


def test_reads_stdin():
    assert sys.stdin.read() == ""


def test_closed_stdin():
    os.read(0, 1)


def test_capsys(capsys):
    print("kept")
    assert capsys.readouterr().out == "kept\n"
    print("more")


def test_properties(record_property):
    record_property("number", 1)
    record_property("text", "½")


def test_writes_beside(request):
    with open(os.path.join(os.path.dirname(__file__), "written"), "w") as file:
        file.write("x")


def test_changes_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert os.listdir(".") == ["x"]


def test_group():
    from unittest import mock

    with mock.patch("outcomes.half", side_effect=OSError(2, "gone", "file")):
        import outcomes

        outcomes.half(2)


def test_repr_breaks():
    class Broken:
        def __repr__(self):
            raise RuntimeError("no repr")

    assert Broken() == 1


def test_local_names(tmp_path_factory):
    """
    >>> 1 + 1
    3
    """
    expected, found = "a\nb\nc\n", "a\nB\nc\n"
    assert expected == found
