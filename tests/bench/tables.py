"""The option of the scale trial, and the tables of what it measured."""

import pytest

from table import Table

SPEED = Table(
    "scale-out: speed",
    (
        "device of each worker",
        "partitions",
        "workers",
        "reviews",
        "reviews/s",
        "of one worker",
        "of the devices",
        "machine busy",
        "missing",
        "twice",
        "out of order",
    ),
)

REBALANCES = Table(
    "scale-out: a worker comes and goes",
    (
        "partitions",
        "membership, session",
        "event",
        "times",
        "group whole again",
        "every partition scored again",
        "reviews",
        "missing",
        "twice",
        "out of order",
    ),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make scale` sets it."""
    group = parser.getgroup("bench")
    group.addoption("--full-scale", action="store_true", help="the scale trial at full size: half an hour")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """As the README has them."""
    SPEED.show(terminalreporter)
    REBALANCES.show(terminalreporter)
