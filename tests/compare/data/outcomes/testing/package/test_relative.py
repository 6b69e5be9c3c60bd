from . import helper


def test_relative():
    assert helper.one() == 2
