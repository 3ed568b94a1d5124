"""The options of the fault tests, and the table of what came of them."""

import re
from collections.abc import Sequence

import pytest

from faults.arena import Result
from table import Table


def order(cells: Sequence[str]) -> tuple[int, int, str]:
    """W1 before W2 before W10, and the letters as in the notes: W, B, G, D, S."""
    letter, number, rest = re.fullmatch(r"(\D+)(\d+)(.*)", cells[0]).groups()
    return "WBGDS".index(letter), int(number), rest


FAULTS = Table(
    "fault matrix",
    ("fault", "what", "reviews", "missing", "twice", "out of order", "dead letters", "restarts", "recovery"),
    order,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make faults` and `make soak` set them."""
    group = parser.getgroup("faults")
    group.addoption("--full-faults", action="store_true", help="the fault matrix at full size: an hour")
    group.addoption("--soak-minutes", type=float, default=0.5, help="how long the soak lasts")


def note(request: pytest.FixtureRequest, name: str, what: str, result: Result) -> None:
    """A row for the table."""
    found = result.finding
    FAULTS.note(
        request,
        name,
        what,
        f"{found.inputs:,}",
        str(len(found.missing)),
        str(len(found.duplicated)),
        str(len(found.disordered)),
        f"{found.dead_letters:,}",
        str(result.restarts),
        "-" if result.recovery_seconds is None else f"{result.recovery_seconds:.1f} s",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table, as the README has it."""
    FAULTS.show(terminalreporter)
