import pytest


@pytest.fixture(scope="module", autouse=True)
def broken():
    print("module fixture")
    yield
    print("module teardown")
    raise RuntimeError("module teardown")


def test_first():
    pass


def test_last():
    pass


def setup_module(module):
    print("setup_module")


def teardown_module(module):
    print("teardown_module")
    assert 0
