"""The jax engine against golden logits, in a process of its own: Keras has one backend a process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="the optional engine `jax` is not installed")

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from worker.artifact import open_artifact
from worker.engine import open_engine
engine = open_engine(open_artifact(Path(sys.argv[1])), "jax", "float32")
engine.warm_up()
rows = [np.array(row, dtype=np.int32) for row in json.load(sys.stdin)]
print(json.dumps(engine.submit(rows).result().logits.tolist()))
engine.close()
"""


def test_it_gives_the_golden_logits(tiny_artifact: Callable[..., Path], tiny_folder: Path, tmp_path: Path) -> None:
    examples = json.loads((tiny_folder / "golden.json").read_text())["examples"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_artifact(tmp_path / "tiny"))],
        input=json.dumps([example["input_ids"] for example in examples]),
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - [example["logits"] for example in examples]).max() < 1e-4
