"""The choice of an engine."""

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
