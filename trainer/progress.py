"""Progress for people: a bar on a terminal, a plain line now and then elsewhere. Everything goes to standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from worker.console import err

Advance = Callable[[float, str], None]
"""Tells how much is done so far, in the unit of the bar's total, and how things stand."""

PLAIN_SECONDS = 10.0
"""Least time between two plain lines: a log of an hour stays within some hundred lines."""


class Reporter:
    """Says what the trainer does."""

    def __init__(self, console: Console = err) -> None:
        self._console = console

    def say(self, line: str) -> None:
        """One line, as it is."""
        self._console.print(line, markup=False)

    def fact(self, name: str, value: str) -> None:
        """One line of a list of facts."""
        self.say(f"{name:<12}{value}")

    def working(self, what: str) -> AbstractContextManager[object]:
        """A sign of life on a terminal while a block runs whose end is not known."""
        return self._console.status(what) if self._console.is_terminal else nullcontext()

    @contextmanager
    def bar(self, what: str, total: float) -> Iterator[Advance]:
        """A bar that goes when its block ends."""
        if self._console.is_terminal:
            with self._drawn(what, total) as advance:
                yield advance
        else:
            yield self._plain(what, total)

    @contextmanager
    def _drawn(self, what: str, total: float) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[status]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total, status="")

            def advance(done: float, status: str = "") -> None:
                progress.update(task, completed=done, status=status)

            yield advance

    def _plain(self, what: str, total: float) -> Advance:
        last = time.monotonic()

        def advance(done: float, status: str = "") -> None:
            nonlocal last
            if time.monotonic() - last >= PLAIN_SECONDS:
                last = time.monotonic()
                self.say(f"{what}  {done / total:4.0%}  {status}".rstrip())

        return advance


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def size(count: float) -> str:
    """`412 kB`, `3.5 MB`, `12 GB`: bytes in powers of 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
