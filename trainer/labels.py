"""Labels: the names of the classes in the order of the network's outputs, and how a CSV may spell them.

Labels whose names are numbers, such as `1,2,3,4,5`, are ratings: any number from the lowest to the highest is one of
them in a CSV, `4.0` as well as `3.5`. It counts as the label that is nearest, of two the higher, and keeps its own
value, which is what regression learns and what the errors of an evaluation are counted from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from worker.errors import UsageError
from worker.verdict import label_numbers

DEFAULT_SPEC = "negative=neg=0,positive=pos=1"
"""Names in the order of the outputs, each with its other spellings."""


@dataclass(frozen=True)
class Labels:
    """Class names and their spellings.

    Attributes:
        names: in the order of the network's outputs.
        spellings: for each name every accepted spelling, the name itself first.
    """

    names: tuple[str, ...]
    spellings: tuple[tuple[str, ...], ...]

    @cached_property
    def numbers(self) -> tuple[float, ...] | None:
        """What the names stand for where they are numbers."""
        found = label_numbers(self.names)
        return None if found is None else tuple(found.tolist())

    def index(self, value: str) -> int | None:
        """The output that `value` names, by any spelling, whatever its case; None where it names none."""
        wanted = value.strip().casefold()
        for index, spellings in enumerate(self.spellings):
            if wanted in (spelling.casefold() for spelling in spellings):
                return index
        return None

    def read(self, value: str) -> tuple[int, float | None] | None:
        """The output that `value` names, or the one that it is nearest to, and in that case its own number; None where
        it is neither a spelling nor a number between the lowest and the highest label."""
        index = self.index(value)
        if index is not None or self.numbers is None:
            return None if index is None else (index, None)
        try:
            number = float(value)
        except ValueError:
            return None
        if not min(self.numbers) <= number <= max(self.numbers):
            return None
        _, _, index = min((abs(own - number), -own, at) for at, own in enumerate(self.numbers))
        return index, None if number == self.numbers[index] else number

    @property
    def accepted(self) -> str:
        """Every accepted spelling, for an error message."""
        spelled = ", ".join("/".join(spellings) for spellings in self.spellings)
        if self.numbers is None:
            return spelled
        return f"{spelled}, and numbers from {min(self.numbers):g} to {max(self.numbers):g}"


def parse_labels(spec: str) -> Labels:
    """Read `name=spelling=spelling,name,...`.

    Raises:
        UsageError: fewer than two labels, an empty one, or a spelling that is used twice.
    """
    spellings = tuple(tuple(part.strip() for part in label.split("=")) for label in spec.split(","))
    flat = [spelling.casefold() for label in spellings for spelling in label]
    if len(spellings) < 2:
        raise UsageError(f"labels {spec!r}: at least two are needed, such as {DEFAULT_SPEC!r}")
    if not all(flat):
        raise UsageError(f"labels {spec!r}: a label is empty; write them as {DEFAULT_SPEC!r}")
    twice = next((spelling for spelling in flat if flat.count(spelling) > 1), None)
    if twice is not None:
        raise UsageError(f"labels {spec!r}: {twice!r} stands there twice")
    return Labels(tuple(label[0] for label in spellings), spellings)


def labels_of(names: Sequence[str]) -> Labels:
    """The labels of a model or of prepared data, with the usual spellings where a name is one of the usual two."""
    usual = parse_labels(DEFAULT_SPEC)
    spellings: list[tuple[str, ...]] = []
    for name in names:
        known = usual.index(name)
        others = () if known is None else usual.spellings[known]
        spellings.append((name, *(other for other in others if other.casefold() != name.casefold())))
    return Labels(tuple(names), tuple(spellings))
