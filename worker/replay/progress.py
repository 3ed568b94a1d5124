"""Progress: which dead letters of a partition are done, in one offset and a short text beside it."""

import zlib
from base64 import b85decode, b85encode
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Self


class Progress:
    """What is done of one partition of dead letters: everything before `first`, and the runs of offsets behind it.

    Reading goes once from `first` on, a `step` for each record. Offsets without a record that can be read (markers,
    aborted records, those that were compacted away) are done with the record behind them: each would cut a run in two
    otherwise, and a worker's transactions leave a marker behind nearly every dead letter.

    Attributes:
        first: offset of the first dead letter that was not put back, as far as that is known.
    """

    def __init__(self, first: int, runs: Iterable[tuple[int, int]] = ()) -> None:
        self.first = first
        self._runs = list(runs)
        """(start, stop), stop excluded: ascending, apart from each other and from `first`."""
        self._read = first
        """Where reading stands."""

    @classmethod
    def decode(cls, first: int, text: str) -> Self:
        """What `encode` wrote beside the offset `first`.

        Raises:
            ValueError: it is something else.
        """
        if not text:
            return cls(first)
        try:
            lengths = [int(length) for length in zlib.decompress(b85decode(text)).split(b",")]
        except zlib.error:
            raise ValueError("not compressed") from None
        if len(lengths) % 2 or min(lengths) < 1:
            raise ValueError("not lengths of runs")
        runs, at = [], first
        for skipped, done in zip(lengths[::2], lengths[1::2], strict=True):
            runs.append((at + skipped, at + skipped + done))
            at += skipped + done
        return cls(first, runs)

    def encode(self) -> str:
        """The runs in ASCII: their lengths and the distances between, beginning at `first`. Nothing for none.

        10,000 dead letters of which a random half was put back take 2,400 characters, longer runs far less.
        """
        lengths, at = [], self.first
        for start, stop in self._runs:
            lengths += [start - at, stop - start]
            at = stop
        if not lengths:
            return ""
        return b85encode(zlib.compress(",".join(map(str, lengths)).encode(), 9)).decode()

    def __contains__(self, offset: int) -> bool:
        """Whether the dead letter at this offset is done."""
        place = bisect_right(self._runs, offset, key=lambda run: run[0])
        return offset < self.first or (place > 0 and offset < self._runs[place - 1][1])

    def step(self, offset: int, *, done: bool) -> None:
        """The next record is at `offset`, and is put back or left."""
        if done:
            self._add(self._read, offset + 1)
        elif self.first >= self._read:
            self._add(self._read, offset)  # nothing is left before this one
        self._read = offset + 1

    def finish(self, end: int) -> None:
        """No record is between the last one and `end`."""
        if self.first >= self._read:
            self._add(self._read, end)

    def _add(self, start: int, stop: int) -> None:
        low = bisect_left(self._runs, start, key=lambda run: run[1])
        high = bisect_right(self._runs, stop, key=lambda run: run[0])
        touched = [(start, stop), *self._runs[low:high]]
        start, stop = min(run[0] for run in touched), max(run[1] for run in touched)
        self._runs[low:high] = [(start, stop)]
        if start <= self.first:
            self.first = max(self.first, self._runs.pop(0)[1])
