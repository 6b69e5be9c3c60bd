import warnings

import pytest


@pytest.fixture
def breaks_before():
    print("before")
    raise RuntimeError("no such thing")


@pytest.fixture
def breaks_after():
    yield 1
    print("after")
    raise RuntimeError("not gone")


@pytest.fixture
def absent():
    pytest.skip("absent today")


@pytest.fixture
def warns():
    warnings.warn("in a fixture", UserWarning)


@pytest.fixture(scope="session", params=["first", "second"])
def whole(request):
    return request.param


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_marked_by_conftest":
            item.add_marker(pytest.mark.xfail(reason="marked by conftest"))
