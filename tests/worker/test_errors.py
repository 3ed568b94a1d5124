"""The tree of errors: what a caller catches, and what the process ends with."""

import inspect
import re

import pytest

from worker import errors
from worker.errors import ReviewScorerError, Rewind


def drawn() -> dict[str, int]:
    """Class names of the tree in the module's docstring, with the depth at which each is drawn."""
    assert errors.__doc__ is not None
    lines = re.findall(r"^ {4}([│ ]*(?:[├└]── )?)([A-Z]\w+) {2,}\S", errors.__doc__, re.MULTILINE)
    return {name: len(indent) // 4 for indent, name in lines}


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    classes = {
        name: sum(issubclass(base, ReviewScorerError) for base in kind.__mro__[1:])
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }

    assert drawn() == classes


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ReviewScorerError, 1),
        (errors.UsageError, 2),
        (errors.SettingsError, 2),
        (errors.ArtifactError, 1),
        (errors.EngineError, 1),
        (errors.BrokerError, 1),
    ],
)
def test_an_error_of_the_user_ends_with_2_and_any_other_with_1(kind: type[ReviewScorerError], code: int) -> None:
    assert kind("what, where, what to do").exit_code == code


def test_going_back_is_no_error_for_the_user() -> None:
    """Caught as one, it would end the process instead of the batch."""
    assert not issubclass(Rewind, ReviewScorerError)
    assert Rewind("CommitFailedError", "aborted").outcome == "aborted"
    assert Rewind("the group has changed").outcome is None
