return


def test_never():
    pass
