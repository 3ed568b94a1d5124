"""W2 of the fault matrix in its small form: kill -9 in the middle of the stream."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.oracle import examine
from running import Stage, Worker

pytestmark = pytest.mark.kafka


def test_kill_9_in_the_middle_loses_and_repeats_nothing(
    stage: Stage, start: Callable[..., Worker], tiny_model: Path
) -> None:
    total = 2_000
    values = [json.dumps({"review_id": f"r{n}", "text": "the movie was great"}).encode() for n in range(total)]
    stage.publish(values, [f"k{n % 50}".encode() for n in range(total)])
    small = {"WORKER_BATCH__TOKEN_BUDGET": "512"}
    for round_ in range(3):
        worker = start(tiny_model, f"killed-{round_}", **small)
        worker.wait_until_ready()
        goal = total // 5 * (round_ + 1)
        deadline = time.monotonic() + 60
        while sum(stage.committed().values()) < goal:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        worker.kill()
    assert sum(stage.committed().values()) < total, "it was too quick to be killed in the middle"
    start(tiny_model, "last", **small)
    stage.wait_until_drained(90)
    found = examine(stage)
    assert found.sound, found
    assert found.predictions == total
