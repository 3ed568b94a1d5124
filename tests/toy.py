"""A toy set that a tiny BERT learns, and small helpers around files."""

import csv
import json
import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GOOD = ("good", "great", "lovely", "fun", "superb")
BAD = ("bad", "awful", "boring", "dull", "poor")
OTHER = ("the", "film", "was", "plot", "and", "very", "acting", "it", "a", "movie", ".", "!", ",", "'", "-")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER)

Row = tuple[str, str]


@dataclass(frozen=True)
class Ended:
    """How a call of the program ended."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]


def write_csv(path: Path, rows: Iterable[Iterable[str]], header: Iterable[str] = ("text", "sentiment")) -> Path:
    """A CSV as spreadsheets write it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def toy_rows(count: int, seed: int) -> list[Row]:
    """Sentences that one word decides, of 3 to 20 words."""
    rng = random.Random(seed)  # noqa: S311 - sentences, not secrets
    rows: list[Row] = []
    for number in range(count):
        words = rng.choices(OTHER, k=rng.randint(2, 19))
        words.insert(rng.randrange(len(words)), rng.choice(GOOD if number % 2 else BAD))
        rows.append((" ".join(words), "pos" if number % 2 else "neg"))
    return rows


def drop_tensors(folder: Path, part: str) -> None:
    """Take every tensor of `part` out of a checkpoint."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(part)}
    save_file(kept, path)


def split_weights(folder: Path, parts: int) -> None:
    """Cut a checkpoint's weights into files with an index, as `transformers` does with large ones."""
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    places = {name: f"model-{at % parts + 1:05d}-of-{parts:05d}.safetensors" for at, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == file}, folder / file)
    path.unlink()
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def edit_json(path: Path, **fields: Any) -> None:
    """Change fields of a JSON object in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | fields), encoding="utf-8")


class StopAfter:
    """Stands in for the signals: one comes behind so many steps of a process, or while it validates."""

    def __init__(self, steps: int) -> None:
        self.left = steps + 1

    def __enter__(self) -> "StopAfter":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def number(self) -> int | None:
        """Asked once behind each step, and once before each batch that is validated."""
        self.left -= 1
        return signal.SIGINT if self.left <= 0 else None
