"""Suites that the tests of this folder run: what pytest can say, said once."""

CONFTEST = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true")

@pytest.fixture(scope="package")
def package_wide():
    print("package up")
    yield 1
    print("package down")

@pytest.fixture(autouse=True)
def around(request):
    print("around", request.node.name)
    yield
    print("around down")
"""

OUTCOMES = """
import logging
import sys
import unittest
import warnings
import pytest

def test_passes():
    pass

def test_fails():
    found = {"a": 1, "b": [1, 2, 3]}
    print("to stdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger("suite").warning("to the log")
    assert found == {"a": 1, "b": [1, 2, 4]}

@pytest.fixture
def broken():
    raise ValueError("broken fixture")

def test_errors(broken):
    pass

@pytest.fixture
def broken_later():
    yield
    print("tearing down")
    raise RuntimeError("broken teardown")

def test_errors_later(broken_later):
    pass

@pytest.mark.skip(reason="marked")
def test_skipped():
    pass

def test_skips_itself():
    pytest.skip("by itself")

@pytest.mark.skipif("sys.platform == 'linux'", reason="a condition")
def test_skipped_if():
    pass

@pytest.mark.xfail(reason="known")
def test_fails_as_known():
    assert 0

@pytest.mark.xfail
def test_passes_unexpectedly():
    pass

@pytest.mark.xfail(strict=True, reason="strictly")
def test_passes_strictly():
    pass

def test_declares_failure():
    pytest.xfail("declared")

@pytest.mark.parametrize("value", ["a b", "é", "x/y", "[1]", "a::b", "\\x1b[0m", 1.5, None, b"\\xff"])
def test_parametrized(value):
    assert value != "x/y"

@pytest.mark.slow
class TestClass:
    @classmethod
    def setup_class(cls):
        print("class up")

    @classmethod
    def teardown_class(cls):
        print("class down")

    def test_one(self):
        pass

    @pytest.mark.fast
    def test_two(self):
        assert 1 == 2

class TestCase(unittest.TestCase):
    def setUp(self):
        print("case up")

    def test_equal(self):
        self.assertEqual(1, 2)

    @unittest.skip("skipped by unittest")
    def test_skipped(self):
        pass

    @unittest.expectedFailure
    def test_expected(self):
        assert 0

def test_warns():
    warnings.warn("an old thing", DeprecationWarning)
    warnings.warn(UserWarning("a user's thing"))

def test_records(record_property):
    record_property("key", 3)

@pytest.fixture(scope="session")
def session_wide():
    print("session up")
    yield
    print("session down")

@pytest.fixture(scope="module")
def module_wide():
    print("module up")
    yield
    print("module down")

@pytest.fixture(scope="class")
def class_wide():
    print("class-wide up")
    yield
    print("class-wide down")

def test_scopes(session_wide, package_wide, module_wide, class_wide):
    assert 0

def test_scopes_again(session_wide, module_wide, class_wide):
    assert 0

def test_chained():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("chained") from error

def test_group():
    raise ExceptionGroup("group", [ValueError(1), TypeError("two")])

def test_lacks_a_fixture(missing):
    pass

def test_cache(cache):
    cache.set("ocirun/x", 1)
    assert cache.get("ocirun/x", None) == 2
"""

DOCTESTS = '''
def double(number):
    """
    >>> double(1)
    2
    >>> double(2)
    5
    """
    return 2 * number
'''

NEAR_CONFTEST = """
import pytest

@pytest.fixture
def near():
    return "near"

def pytest_collection_modifyitems(items):
    for item in items:
        if "slowish" in item.name:
            item.add_marker("slow")
"""

NEAR = """
import warnings
warnings.warn("while importing", UserWarning)

def test_near(near):
    assert near == "far"

def test_slowish():
    pass
"""

INI = """
[pytest]
markers =
    slow: takes its time
    fast
"""
