"""How `tail` shows predictions: a live table in a terminal, aligned lines elsewhere, JSON lines for a program."""

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

from pydantic import ValidationError
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas import Prediction
from worker.console import err, out
from worker.tail import Arrival

ROWS = 12
RATE_SECONDS = 5.0


def show(arrivals: Iterator[list[Arrival]], *, count: int | None, every: int, as_json: bool) -> int:
    """Show arrivals until they end.

    Args:
        arrivals: a poll's worth at a time.
        count: leave after so many.
        every: print each so many-th line only; a terminal's table and JSON show all.
        as_json: the records' own JSON, one a line.

    Returns:
        How many arrived.
    """
    limited = _limited(arrivals, count)
    if as_json:
        return _lines(limited, lambda arrival: arrival.value.decode(errors="replace"), 1)
    if out.is_terminal:
        return _table(limited)
    return _lines(limited, _line, every)


def _limited(arrivals: Iterator[list[Arrival]], count: int | None) -> Iterator[list[Arrival]]:
    left = sys.maxsize if count is None else count
    for some in arrivals:
        yield some[:left]
        left -= len(some)
        if left <= 0:
            return


def _lines(arrivals: Iterator[list[Arrival]], line: Callable[[Arrival], str], every: int) -> int:
    shown = 0
    for some in arrivals:
        for arrival in some:
            shown += 1
            if shown % every == 0:
                print(line(arrival))
        if some:
            sys.stdout.flush()
    return shown


def _line(arrival: Arrival) -> str:
    try:
        it = arrival.prediction()
    except ValidationError:
        return "? a record that is no prediction"
    return f"{it.scored_at:%H:%M:%S}  {it.label:<10} {it.confidence:6.1%}  {it.tokens:>4} tokens  {it.review_id}"


class _Tally:
    """What the table's foot sums up."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()
        self._times: deque[float] = deque()

    def add(self, prediction: Prediction) -> None:
        self.labels[prediction.label] += 1
        self._times.append(time.monotonic())

    def foot(self) -> Text:
        now = time.monotonic()
        while self._times and now - self._times[0] > RATE_SECONDS:
            self._times.popleft()
        total = sum(self.labels.values())
        shares = ", ".join(f"{label} {number / total:.0%}" for label, number in self.labels.most_common(5))
        return Text(f"{total:,} predictions, {len(self._times) / RATE_SECONDS:.0f}/s   {shares}", style="dim")


def _table(arrivals: Iterator[list[Arrival]]) -> int:
    recent: deque[Prediction] = deque(maxlen=ROWS)
    tally = _Tally()
    with Live(_drawn(recent, tally), console=out, refresh_per_second=8) as live:
        for some in arrivals:
            for arrival in some:
                try:
                    prediction = arrival.prediction()
                except ValidationError:
                    err.print("a record that is no prediction was passed over")
                    continue
                recent.append(prediction)
                tally.add(prediction)
            live.update(_drawn(recent, tally))
    return sum(tally.labels.values())


def _drawn(recent: deque[Prediction], tally: _Tally) -> Group:
    table = Table(expand=False, header_style="bold")
    table.add_column("scored")
    table.add_column("review", max_width=40, no_wrap=True, overflow="ellipsis")
    table.add_column("label", min_width=10)
    table.add_column("confidence", justify="right")
    table.add_column("tokens", justify="right")
    table.add_column("from")
    for it in recent:
        table.add_row(
            f"{it.scored_at:%H:%M:%S}",
            Text(it.review_id),
            Text(it.label),
            f"{it.confidence:.1%}",
            f"{it.tokens}{'+' if it.truncated else ''}",
            Text(f"{it.source.topic}/{it.source.partition}/{it.source.offset}"),
        )
    return Group(table, tally.foot())
