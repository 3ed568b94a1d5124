"""Fine-tuning side by side: the trainer's own steps against PyTorch with transformers, from the same checkpoint on the
same batches of the same reviews, in turns on the same machine.

Batches of reviews of similar length, each padded to its longest (here: to the bucket of it); AdamW with warm-up and
linear decay, gradients clipped, dropout as the checkpoint has it. PyTorch comes from an environment of its own:

    PYTHONPATH=tests .venv/bin/python tests/bench/training.py --base CHECKPOINT --data reviews.csv.gz \
        --peers /path/to/python/with/torch/and/transformers
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

HERE = Path(__file__).parent
OURS, THEIRS = HERE / "training_ours.py", HERE / "training_theirs.py"
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
"""What both can compute in, and what our setting calls it."""

HEADINGS = ("precision", "here, reviews/s", "PyTorch, reviews/s", "times as fast", "tokens a review", "padding here")


@dataclass(frozen=True)
class Turn:
    """Some steps that a side was told to do.

    Attributes:
        reviews: of them.
        seconds: that they took.
    """

    reviews: int
    seconds: float


class Side:
    """One of the two, a process that does the steps it is told to and waits in between."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"{self._process.args} ended before it was done")

    def steps(self, begin: int, end: int) -> Turn:
        """Train on these batches of the plan."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{begin} {end}\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Turn(answer["reviews"], answer["seconds"])


@contextmanager
def started(*command: object) -> Iterator[Side]:
    """A side that is gone afterwards."""
    process = subprocess.Popen(
        [*map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )
    try:
        yield Side(process)
    finally:
        process.kill()
        process.communicate()


def speed(turns: Sequence[Turn]) -> float:
    """Reviews a second over all turns."""
    return sum(turn.reviews for turn in turns) / sum(turn.seconds for turn in turns)


def measure(job: dict[str, object], peers: Path | None, turns: int, rounds: int) -> tuple[str, ...]:
    """Train on both sides in turns. Before anything is timed each side does the first turn once: it compiles, and finds
    its memory. What the other turns bring that is new is in the first round, and with three rounds not in the median.

    Returns:
        A row of the table: medians of the rounds.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        told = Path(folder) / "job.json"
        told.write_text(json.dumps(job | {"batches": str(Path(folder) / "batches.npz")}))
        sides = [stack.enter_context(started(sys.executable, OURS, told))]
        if peers is not None:
            sides.append(stack.enter_context(started(peers, THEIRS, told)))
        facts = sides[0].facts
        count: int = facts["batches"]
        ends = [count * turn // turns for turn in range(turns + 1)]
        for side in sides:
            side.steps(0, ends[1])
        reached: list[list[float]] = []
        for number in range(1, rounds + 1):
            taken: list[list[Turn]] = [[] for _ in sides]
            for begin, end in pairwise(ends):
                for side, own in zip(sides, taken, strict=True):
                    own.append(side.steps(begin, end))
            reached.append([speed(own) for own in taken])
            both = " and ".join(f"{each:.1f}" for each in reached[-1])
            print(f"{job['name']}, round {number} of {rounds}: {both} reviews/s", file=sys.stderr, flush=True)
    ours, *peer = zip(*reached, strict=True)
    theirs, ratio = "-", "-"
    if peer:
        theirs, ratio = f"{median(peer[0]):.1f}", f"{median(here / there for here, there in reached):.2f}"
    return (str(job["name"]), f"{median(ours):.1f}", theirs, ratio, f"{facts['tokens']:.0f}", f"{facts['padding']:.1%}")


def main(
    base: Annotated[Path, typer.Option(help="A BERT in Hugging Face layout.")],
    data: Annotated[Path, typer.Option(help="A CSV of labelled reviews; .gz too.")],
    peers: Annotated[Path | None, typer.Option(help="A Python with torch and transformers.")] = None,
    reviews: Annotated[int, typer.Option(help="To train on.")] = 512,
    batch: Annotated[int, typer.Option(help="Reviews of a step.")] = 16,
    max_tokens: Annotated[int, typer.Option(help="Read of a review.")] = 512,
    turns: Annotated[int, typer.Option(help="Of each side in a round.")] = 4,
    rounds: Annotated[int, typer.Option(help="Times over the reviews.")] = 3,
    only: Annotated[str | None, typer.Option(help="One precision: float32 or bfloat16.")] = None,
) -> None:
    """Measure both sides, and print the table that a README can take."""
    if peers is None:
        print("PyTorch is left out: --peers names a Python that has it", file=sys.stderr)
    print(f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}", sep="\n", flush=True)
    for name in PRECISIONS if only is None else [only]:
        job: dict[str, object] = {
            "name": name,
            "precision": PRECISIONS[name],
            "base": str(base.resolve()),
            "data": str(data.resolve()),
            "reviews": reviews,
            "batch": batch,
            "max_tokens": max_tokens,
        }
        print(f"| {' | '.join(measure(job, peers, turns, rounds))} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
