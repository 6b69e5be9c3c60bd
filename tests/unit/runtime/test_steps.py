"""Replaying steps."""

import errno

import pytest

from pytest_ocirun.runtime import prepare, process, rootfs, steps  # noqa: F401 - they register operations
from pytest_ocirun.runtime.spawn import _shortened, failure
from pytest_ocirun.runtime.steps import Context, StepFailed, describe, replay


def test_failure_names_its_step_and_stops() -> None:
    """The step and the kernel's error travel together; later steps are not done."""
    context = Context({})
    with pytest.raises(StepFailed) as caught:
        replay(
            [["open_path", "a", "/dev/null", 0], ["open_path", "b", "/no/such", 0], ["open_path", "c", "/", 0]], context
        )

    assert caught.value.step == ["open_path", "b", "/no/such", 0]
    assert caught.value.error.errno == errno.ENOENT
    assert set(context.fds) == {"a"}


def test_description_fills_the_arguments_in() -> None:
    """As a sentence."""
    assert describe(["user", 1, 2, [3]]) == "become uid 1, gid 2, groups [3]"
    assert describe(["umask", 0o22]) == "set the file mode mask to 0022"


def test_init_of_another_start_time_is_not_opened() -> None:
    """A pid that means another process by now is not joined."""
    with pytest.raises(StepFailed, match=r"not running any more"):
        replay([["open_init", "init", 1, 1 << 60]], Context({}))


def test_long_texts_leave_room_in_a_message() -> None:
    """Cut with a note of how long they were."""
    assert _shortened("x" * 10) == "x" * 10
    assert _shortened("x" * 70000).endswith("x... (70000 characters)")
    message = failure("y" * 70000, OSError(1, "z" * 70000, "p" * 70000))

    assert len(str(message)) < 10000


def test_rare_operations_are_where_they_are_said_to_be() -> None:
    """A plan that names one finds it, whatever the module that registers it."""
    for name, module in steps._HOMES.items():
        steps.load([[name]])

        function, _sentence = steps._operations[name]
        assert function.__module__ == f"pytest_ocirun.runtime.{module}"
