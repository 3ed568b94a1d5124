"""Tables of what tests measured, printed behind the results as Markdown that a README can take.

A row travels with its test's report, so that it arrives from another process (pytest-xdist) too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest


def numerically(cells: Sequence[str]) -> list[tuple[str, int]]:
    """The order of a reader: 4 before 12."""
    return [(text, int(digits or 0)) for cell in cells for text, digits in re.findall(r"(\D+|^)(\d*)", cell)]


@dataclass(frozen=True)
class Table:
    """One table. A plugin notes rows in tests, and shows it in its `pytest_terminal_summary`."""

    title: str
    """Over the table; no two have the same."""
    headings: tuple[str, ...]
    order: Callable[[Sequence[str]], Any] = numerically
    """What rows are sorted by: they arrive as they are done."""

    def note(self, request: pytest.FixtureRequest, *cells: str) -> None:
        """A row of the running test."""
        assert len(cells) == len(self.headings)
        request.node.user_properties.append((self.title, cells))

    def show(self, reporter: pytest.TerminalReporter) -> None:
        """Nothing when no test noted a row. One that failed keeps its rows: they say how."""
        found = sorted(self._rows(reporter), key=self.order)
        if not found:
            return
        reporter.section(self.title)
        for cells in (self.headings, ("---",) * len(self.headings), *found):
            reporter.write_line(f"| {' | '.join(cells)} |")

    def _rows(self, reporter: pytest.TerminalReporter) -> Iterator[Sequence[str]]:
        for outcome in ("passed", "failed"):
            for report in reporter.stats.get(outcome, ()):
                if isinstance(report, pytest.TestReport) and report.when == "call":
                    yield from (cells for title, cells in report.user_properties if title == self.title)
