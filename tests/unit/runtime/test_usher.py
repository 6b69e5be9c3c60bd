"""The usher: which steps are left to it. What it does with them is the runner's, and the command line's tests'."""

from typing import Any

import pytest

from pytest_ocirun.runtime.usher import adapt


@pytest.mark.parametrize("extra", [["run_hooks"], ["set_label"]])
def test_a_step_that_it_cannot_do_is_not_left_out(extra: list[Any]) -> None:
    """Whoever adds one behind ``ready`` hears of it at once: nothing is left undone quietly."""
    plan = {"enter": [["pivot"], ["ready"], ["wait_start"], extra, ["arrange_fds", {}], ["execute", ["a"], []]]}

    with pytest.raises(AssertionError, match="cannot do"):
        adapt(plan)
