"""The options of the fault tests, and the table of what came of them."""

from collections.abc import Iterator

import pytest

from faults.arena import Result

RESULTS = pytest.StashKey[list[tuple[str, str, Result]]]()
HEADINGS = ("fault", "what", "reviews", "missing", "twice", "out of order", "dead letters", "restarts", "recovery")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make faults` and `make soak` set them."""
    group = parser.getgroup("faults")
    group.addoption("--full-faults", action="store_true", help="the fault matrix at full size: an hour")
    group.addoption("--soak-minutes", type=float, default=0.5, help="how long the soak lasts")


def pytest_configure(config: pytest.Config) -> None:
    """An empty table."""
    config.stash[RESULTS] = []


def note(config: pytest.Config, name: str, what: str, result: Result) -> None:
    """A row for the table."""
    config.stash[RESULTS].append((name, what, result))


def rows(results: list[tuple[str, str, Result]]) -> Iterator[tuple[str, ...]]:
    """The table's cells."""
    for name, what, result in results:
        found = result.finding
        yield (
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, as the README has it."""
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("fault matrix")
    for cells in (HEADINGS, ("---",) * len(HEADINGS), *rows(results)):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
