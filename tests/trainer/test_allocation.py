"""The memory that training may take."""

import os
from pathlib import Path

import pytest

from forked import Forked
from trainer import allocation
from trainer.allocation import limit_memory

BFC, LIMIT = "TF_CPU_ALLOCATOR_USE_BFC", "TF_CPU_BFC_MEM_LIMIT_IN_MB"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variable is set, and none stays."""
    for name in (BFC, LIMIT):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_containers_limit_counts_without_the_cache(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    assert allocation._group(tmp_path) == 550
    (tmp_path / "memory.max").write_text("max\n")
    assert allocation._group(tmp_path) is None
    assert allocation._group(tmp_path / "nothing") is None
    free = allocation.free_memory()
    assert free is None or free > 0


@pytest.mark.parametrize(("free", "limit"), [(8 << 30, "7936"), (1 << 20, "256"), (None, None)])
def test_training_gets_what_is_free(monkeypatch: pytest.MonkeyPatch, free: int | None, limit: str | None) -> None:
    monkeypatch.setattr(allocation, "free_memory", lambda: free)
    limit_memory()
    assert (os.environ[BFC], os.environ.get(LIMIT)) == ("1", limit)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BFC, "0")
    monkeypatch.setenv(LIMIT, "100")
    limit_memory()
    assert (os.environ[BFC], os.environ[LIMIT]) == ("0", "100")


@pytest.mark.slow
def test_a_step_too_large_for_the_memory_is_one_line(toy_data: Path, base: Path, tmp_path: Path) -> None:
    asked = ("train", toy_data, "--base", base, "--out", tmp_path / "run", "--epochs", 1, "--precision", "float32")
    with Forked(tmp_path, *asked, "--batch-size", 192, environment={LIMIT: "8"}) as forked:
        assert forked.end() == 1
    assert "error: the memory does not suffice for batches of 192 x 40 tokens; lower --batch-size" in forked.err
    assert "Traceback" not in forked.err
    assert not (tmp_path / "run").exists()
