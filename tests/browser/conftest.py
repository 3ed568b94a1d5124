"""Debian's Chromium, and the live page of a worker through which reviews flow."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from browser.pieces import LABELS, Tab, flowing, opened, started_workers
from contract.pieces import StubWorker
from running import Broker, Stage
from worker.artifact import digest_file


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A real browser. It starts once; each test opens its own address in it."""
    profile = tmp_path_factory.mktemp("chromium")
    with opened(profile) as tab:
        yield tab
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="session")
def hostile_model(tiny_artifact: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent folder of an artefact with a label that would be a script, if it were taken for markup."""
    folder = tiny_artifact(tmp_path_factory.mktemp("hostile") / "tiny", labels=LABELS)
    config, manifest = folder / "config.json", folder / "manifest.json"
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: place for place, label in enumerate(LABELS)}}
    config.write_text(json.dumps(json.loads(config.read_text()) | labels))
    told = json.loads(manifest.read_text())
    told["files"]["config.json"] = digest_file(config).model_dump()
    manifest.write_text(json.dumps(told))
    return folder.parent


@pytest.fixture(scope="module")
def worker(kafka: Broker, hostile_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubWorker]:
    """Under load, with dead letters and a second model, for all tests of a file."""
    folder = tmp_path_factory.mktemp("page")
    stage = Stage(kafka.address, partitions=2)
    stage.make_topics()
    with ExitStack() as stack:
        start = stack.enter_context(started_workers(stage, hostile_model, folder))
        worker = start("worker", WORKER_SHADOW__MODEL=str(hostile_model), WORKER_SHADOW__SHARE="1")
        worker.wait_until_ready()
        stack.enter_context(flowing(stage))
        yield worker
