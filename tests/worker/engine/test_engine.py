"""The choice of an engine."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.artifact import open_artifact
from worker.engine import open_engine
from worker.errors import ArtifactError


def test_weights_that_do_not_fit_the_config_are_refused(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_artifact(tmp_path)
    artifact = open_artifact(folder)
    wider = artifact.config.model_copy(update={"intermediate_size": 128})

    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        open_engine(type(artifact)(folder, artifact.manifest, artifact.digest, wider), "tensorflow")


def test_the_seam_itself_needs_no_framework() -> None:
    """So that the command line answers at once, and a settings error does not wait for TensorFlow."""
    code = (
        "import sys, worker.engine, worker.settings, worker.service;"
        "print([name for name in ('tensorflow', 'keras', 'jax', 'torch') if name in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "[]\n"
