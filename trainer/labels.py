"""Labels: the names of the classes in the order of the network's outputs, and how a CSV may spell them."""

from collections.abc import Sequence
from dataclasses import dataclass

from worker.errors import UsageError

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

    def index(self, value: str) -> int | None:
        """The output that `value` names, by any spelling, whatever its case; None where it names none."""
        wanted = value.strip().casefold()
        for index, spellings in enumerate(self.spellings):
            if wanted in (spelling.casefold() for spelling in spellings):
                return index
        return None

    @property
    def accepted(self) -> str:
        """Every accepted spelling, for an error message."""
        return ", ".join("/".join(spellings) for spellings in self.spellings)


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
