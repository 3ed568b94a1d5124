"""What the tests share: the reference models, a valid artefact built by hand, and a Hypothesis that repeats itself."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import worker as worker  # the programs' own TensorFlow, whichever test brings it in first

if TYPE_CHECKING:
    from worker.engine import Engine

# A run in the background of a shell ignores SIGINT, and so would every process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same commit gives the same result, and a busy machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

pytest_plugins = ["live", "faults.table", "bench.tables"]

SHARED = Path(__file__).parents[2] / "shared"

BuildArtifact = Callable[..., Path]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference models and data, which stand beside the repository on the project's own machines."""
    if not SHARED.is_dir():
        pytest.skip("no folder `shared` beside the repository: it holds the reference models and data")
    return SHARED


@pytest.fixture(scope="session")
def tiny_folder(shared: Path) -> Path:
    """A BERT of 2 layers and 78 words with random weights and three labels, in Hugging Face's layout."""
    return shared / "models" / "tiny-bert-3-labels"


@pytest.fixture(scope="session")
def tiny_artifact(tiny_folder: Path) -> BuildArtifact:
    """`tiny_artifact(parent)` builds the artefact `parent/1` from the tiny model and returns its folder.

    `version` is another version; any other argument is a field of the manifest.
    """
    from worker.artifact import digest_file

    def build(parent: Path, version: int = 1, **fields: Any) -> Path:
        folder = parent / str(version)
        folder.mkdir(parents=True)
        names = ("config.json", "model.safetensors", "tokenizer.json")
        for name in names:
            shutil.copyfile(tiny_folder / name, folder / name)
        manifest = {
            "format": 1,
            "name": "tiny",
            "version": version,
            "created_at": "2026-11-23T09:00:00Z",
            "labels": ["negative", "neutral", "positive"],
            "cut": {"head": 16, "tail": 48},
            "cleaning": ["line-breaks"],
            "temperature": 1.0,
            "base": "tiny-bert-3-labels",
            "metrics": {},
            "data_digest": None,
            "libraries": {"keras": "3.15.1"},
            "files": {name: digest_file(folder / name).model_dump() for name in names},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | fields), encoding="utf-8")
        return folder

    return build


@pytest.fixture(scope="session")
def tiny_engine(tiny_artifact: BuildArtifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Engine"]:
    """The tiny model, warm, in float32: what the reference's logits were computed in."""
    from worker.artifact import open_artifact
    from worker.engine import open_engine

    engine = open_engine(open_artifact(tiny_artifact(tmp_path_factory.mktemp("tiny"))), "tensorflow", "float32")
    engine.warm_up()
    yield engine
    engine.close()
