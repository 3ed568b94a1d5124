"""Tables come out in order, whatever order their rows come in and whichever process they come from."""

import json
from typing import Any

import pytest

from table import Table, numerically

TREES = Table("trees", ("tree", "height"))


class Reporter:
    """What pytest gives at its end, and what was written to it."""

    def __init__(self, **outcomes: list[Any]) -> None:
        self.stats = outcomes
        self.written: list[str] = []
        self.section = self.written.append
        self.write_line = self.written.append


def report(*properties: tuple[str, object], when: str = "call") -> pytest.TestReport:
    """Of a test in another process: what it noted came as JSON."""
    carried = [tuple(pair) for pair in json.loads(json.dumps(properties))]
    return pytest.TestReport("t.py::t", ("t.py", 1, "t"), {}, "passed", None, when, user_properties=carried)


def shown(**outcomes: list[Any]) -> list[str]:
    """The lines of the table."""
    reporter = Reporter(**outcomes)
    TREES.show(reporter)  # type: ignore[arg-type]
    return reporter.written


def test_rows_are_sorted_as_a_reader_counts() -> None:
    rows = [report(("trees", ("oak 12", "30"))), report(("trees", ("oak 4", "9")), ("trees", ("oak 4", "10")))]

    assert shown(passed=rows) == [
        "trees",
        "| tree | height |",
        "| --- | --- |",
        "| oak 4 | 9 |",
        "| oak 4 | 10 |",
        "| oak 12 | 30 |",
    ]


def test_a_test_that_failed_keeps_its_row_and_another_table_its_own() -> None:
    failed = [report(("trees", ("elm", "1")), ("bushes", ("yew", "2")))]

    assert shown(failed=failed)[3:] == ["| elm | 1 |"]


def test_a_test_reports_thrice_and_its_row_stands_once() -> None:
    row = ("trees", ("elm", "1"))

    assert shown(passed=[report(row), report(row, when="teardown")])[3:] == ["| elm | 1 |"]


def test_without_rows_there_is_no_table() -> None:
    assert shown(passed=[report()], error=["no report"]) == []


@pytest.mark.parametrize(
    ("earlier", "later"), [("4", "12"), ("a", "b"), ("W2", "W10"), ("", "1"), ("a 2 b", "a 10 b"), ("9 a", "10 a")]
)
def test_numbers_in_a_text_count_as_numbers(earlier: str, later: str) -> None:
    assert numerically([earlier]) < numerically([later])


def test_a_row_has_a_cell_for_each_heading(request: pytest.FixtureRequest) -> None:
    with pytest.raises(AssertionError):
        TREES.note(request, "elm")
    assert request.node.user_properties == []
