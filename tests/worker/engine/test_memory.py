"""What an engine on a CPU says of its memory, held to what the system says."""

import math
import resource
from pathlib import Path

import pytest

from worker.engine import memory
from worker.engine.memory import host_memory


def test_a_process_holds_what_the_system_says() -> None:
    held = host_memory()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak / 4 < held.used <= peak * 1.05
    assert held.used < held.limit


def test_it_follows_what_the_process_takes() -> None:
    before = host_memory().used
    taken = bytearray(b"x") * (64 << 20)
    assert host_memory().used - before > 48 << 20
    assert len(taken) == 64 << 20


@pytest.mark.parametrize(("content", "limited"), [("1000000000", True), ("max", False), ("9223372036854771712", False)])
def test_a_containers_limit_counts_where_it_is_lower(
    content: str, limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "none",))
    machine = host_memory().limit
    (tmp_path / "memory.max").write_text(content + "\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    assert host_memory().limit == (1e9 if limited else machine)


def test_another_system_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(memory.Path, "read_text", absent)
    assert math.isnan(host_memory().used)
    assert math.isnan(host_memory().limit)
