"""The openvino engine against the float32 network."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

openvino = pytest.importorskip("openvino", reason="the optional engine `openvino` is not installed")

from trainer.export import import_folder  # noqa: E402
from worker.artifact import Artifact, open_artifact  # noqa: E402
from worker.engine import Engine, open_engine  # noqa: E402
from worker.errors import EngineError  # noqa: E402

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def artifact(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artefact with a SavedModel, as the trainer writes it."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    import_folder(str(tiny_folder), out, cut="head", max_tokens=None, cleaning=("line-breaks",), labels=None)
    return open_artifact(out)


@pytest.fixture(scope="module")
def engine(artifact: Artifact) -> Iterator[Engine]:
    opened = open_engine(artifact, "openvino", "float32")
    opened.warm_up()
    yield opened
    opened.close()


def test_it_gives_the_golden_logits(engine: Engine, tiny_folder: Path) -> None:
    examples = json.loads((tiny_folder / "golden.json").read_text())["examples"]
    rows = [np.array(example["input_ids"], dtype=np.int32) for example in examples]
    scored = engine.submit(rows).result()
    assert np.abs(scored.logits - [example["logits"] for example in examples]).max() < TOLERANCE


def test_logits_come_in_the_order_of_the_rows_whatever_their_lengths(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 70, size=length).astype(np.int32) for length in rng.integers(2, 64, size=100)]
    together = engine.submit(rows).result()
    alone = np.concatenate([engine.submit([row]).result().logits for row in rows])
    assert np.abs(together.logits - alone).max() < TOLERANCE
    assert together.device_tokens == sum(len(row) for row in rows)


def test_an_empty_batch_is_no_work(engine: Engine) -> None:
    assert engine.submit([]).result().logits.shape == (0, 3)


def test_auto_takes_it_where_there_is_no_gpu(artifact: Artifact) -> None:
    from worker.engine import NVIDIA

    if NVIDIA.exists():
        pytest.skip("this machine has an NVIDIA GPU")
    opened = open_engine(artifact)
    opened.close()
    assert opened.description.name == "openvino"


def test_a_precision_it_does_not_have_is_refused(artifact: Artifact) -> None:
    with pytest.raises(EngineError, match="float32"):
        open_engine(artifact, "openvino", "float16")


def test_its_memory_is_that_of_the_process(engine: Engine) -> None:
    held = engine.memory()
    assert 10_000_000 < held.used < held.limit
