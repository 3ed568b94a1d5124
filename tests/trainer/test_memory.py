"""The estimate of the memory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from trainer import memory
from trainer.dataset import Buckets
from trainer.device import Device
from trainer.job import Job
from trainer.memory import memory_line, step_bytes
from trainer.settings import TrainSettings
from worker.bert_config import BertConfig

CONFIG = BertConfig(vocab_size=20, hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=256)


def job_of(kind: str = "cpu", head: int = 0, **settings: Any) -> Job:
    job = SimpleNamespace(
        checkpoint=SimpleNamespace(config=CONFIG),
        settings=TrainSettings(base="b", **{"precision": "float32", "batch_size": 8} | settings),
        lengths=[np.array([10, 10]), np.array([10, 100])],
        plans=[[np.array([0]), np.array([1])]] * 2,
        buckets=Buckets((10, 50, 100)),
        head_numbers=lambda tokens: head * tokens,
        smaller="lower --batch-size",
        device=Device(kind, "somewhere", bfloat16=False),  # type: ignore[arg-type]
    )
    return cast(Job, job)


def network_of(parameters: int) -> Any:
    moment = SimpleNamespace(shape=(parameters,), dtype="float32")
    return SimpleNamespace(
        count_params=lambda: parameters,
        optimizer=SimpleNamespace(variables=[moment, moment, SimpleNamespace(shape=(), dtype="int64")]),
    )


def test_a_step_grows_with_rows_and_faster_than_with_width() -> None:
    one = step_bytes(job_of(batch_size=8))
    assert step_bytes(job_of(batch_size=16)) == 2 * one
    assert step_bytes(job_of(batch_size=16, devices=2)) == one
    assert step_bytes(job_of(precision="mixed_bfloat16")) < one
    assert step_bytes(job_of(batch_size=8, head=3)) == one + 8 * 100 * 3 * 4
    narrow = job_of()
    narrow.lengths[-1][1] = 50
    assert step_bytes(narrow) < one / 2
    early = job_of()
    early.lengths.reverse()
    assert step_bytes(early) == one, "the widest batch counts, in whichever epoch it comes"


def test_the_line_says_what_is_needed_and_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 64_000_000_000)
    line = memory_line(job_of(), network_of(1_000_000))
    assert "weights 4 MB, gradients 4 MB, optimizer 8 MB, a step " in line
    assert line.endswith("; 64 GB are free")
    monkeypatch.setattr(memory, "free_memory", lambda: 10_000_000)
    line = memory_line(job_of(), network_of(1_000_000))
    assert line.startswith("WARNING: about ")
    assert "only 10 MB are free: the run will not fit, lower --batch-size" in line
    assert "free" not in memory_line(job_of("gpu"), network_of(1_000_000)), "that is not the GPU's memory"
    assert "on each device" in memory_line(job_of("gpu", devices=2), network_of(1_000_000))


def test_a_containers_limit_counts_without_the_cache(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    assert memory._group(tmp_path) == 550
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._group(tmp_path) is None
    assert memory._group(tmp_path / "nothing") is None
    free = memory.free_memory()
    assert free is None or free > 0
