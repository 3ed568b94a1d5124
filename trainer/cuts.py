"""Other readings of a long review than its head, or its head and tail: an option of evaluation.

In: all tokens of a review. Out: the rows that are scored in its place, whose logits are averaged. The worker reads a
review once, by the artefact's own cut; this measures what more readings would bring, and what they cost.
"""

from dataclasses import dataclass
from typing import get_args

from numpy import concatenate

from schemas import Cut
from trainer.settings import CutName, cut_of
from worker.artifact import TOKENIZER, Artifact
from worker.errors import UsageError
from worker.tokens import Ids, ReviewTokenizer

EVERYTHING = Cut(head=1 << 30, tail=1)

WINDOWS = "windows"
"""The whole review in rows as long as the cut, each beginning half a row behind the one before; the last ends with the
review."""

READINGS = (*get_args(CutName), WINDOWS)


@dataclass(frozen=True)
class Views:
    """Readings of a review.

    Attributes:
        names: out of `READINGS`.
        longest: tokens of a row at most, [CLS] and [SEP] included.
    """

    names: tuple[str, ...]
    longest: int

    def tokenizer(self, artifact: Artifact) -> ReviewTokenizer:
        """The artefact's own, without a cut."""
        return ReviewTokenizer.load(artifact.folder / TOKENIZER, EVERYTHING, artifact.manifest.cleaning)

    def read(self, ids: Ids) -> list[Ids]:
        """The rows of one review; a review that fits into a row is that row.

        Args:
            ids: all of its tokens, int32, (length,).
        """
        if len(ids) <= self.longest:
            return [ids]
        rows: list[Ids] = []
        for name in self.names:
            if name == WINDOWS:
                rows += self._windows(ids)
            else:
                cut = cut_of("head" if name == "head" else "head+tail", self.longest, self.longest)
                rows.append(concatenate([ids[: cut.head], ids[len(ids) - cut.tail :]]))
        return rows

    def _windows(self, ids: Ids) -> list[Ids]:
        content, width = ids[1:-1], self.longest - 2
        last = len(content) - width
        starts = [*range(0, last, max(width // 2, 1)), last]
        return [concatenate([ids[:1], content[at : at + width], ids[-1:]]) for at in starts]


def parse_cuts(spec: str, cut: Cut) -> Views:
    """Read names parted by commas, for a model with the cut `cut`.

    Raises:
        UsageError: one is not known, or stands there twice.
    """
    names = tuple(name.strip() for name in spec.split(","))
    unknown = [name for name in names if name not in READINGS]
    if unknown:
        raise UsageError(f"--cuts: unknown cut {unknown[0]!r}; known: {', '.join(READINGS)}")
    if len(set(names)) < len(names):
        raise UsageError(f"--cuts {spec!r}: names a cut twice")
    return Views(names, cut.head + cut.tail)
