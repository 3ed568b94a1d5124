"""The jax engine on a CPU against golden logits, in processes of its own: Keras has one backend a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from worker.artifact import open_artifact
from worker.engine import open_engine
engine = open_engine(open_artifact(Path(sys.argv[1])), "jax", sys.argv[2], Path(sys.argv[3]))
engine.warm_up()
rows = [np.array(row, dtype=np.int32) for row in json.load(sys.stdin)]
together = engine.submit(rows).result().logits
alone = [engine.submit([row]).result().logits[0].tolist() for row in rows]
print(json.dumps({"together": together.tolist(), "alone": alone}))
engine.close()
"""


@dataclass(frozen=True)
class Place:
    """A tiny artefact, its examples with their golden logits, and a folder for what is compiled."""

    model: Path
    rows: list[list[int]]
    logits: NDArray[np.float64]
    cache: Path


@pytest.fixture(scope="module")
def place(tiny_artifact: Callable[..., Path], tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The tiny reference model."""
    examples = json.loads((tiny_folder / "golden.json").read_text())["examples"]
    folder = tmp_path_factory.mktemp("jax")
    return Place(
        tiny_artifact(folder / "tiny"),
        [example["input_ids"] for example in examples],
        np.array([example["logits"] for example in examples]),
        folder / "cache",
    )


def scored(place: Place, precision: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits of the examples in one batch, and one by one, of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place.model), precision, str(place.cache)],
        input=json.dumps(place.rows),
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return np.array(said["together"]), np.array(said["alone"])


def test_it_gives_the_golden_logits_packed_and_alone_and_compiles_nothing_twice(place: Place) -> None:
    together, alone = scored(place, "float32")
    assert np.abs(together - place.logits).max() < 1e-4
    assert np.abs(alone - place.logits).max() < 1e-4
    # Times of use stand in files of their own.
    kept = {path.name for path in place.cache.iterdir() if not path.name.endswith("-atime")}
    assert any("forward" in name for name in kept)
    again, _ = scored(place, "float32")
    assert {path.name for path in place.cache.iterdir() if not path.name.endswith("-atime")} == kept
    assert np.array_equal(again, together)


def test_bfloat16_is_near(place: Place) -> None:
    together, _ = scored(place, "bfloat16")
    assert 0 < np.abs(together - place.logits).max() < 0.05
