"""Watchdog: a stage that does not return ends the process, and nothing else does."""

import json
import subprocess
import sys
import time

import pytest

from worker.watchdog import EXIT_CODE, Watchdog

HANGING = """
import sys, threading, time
from worker.logs import start_logging
from worker.watchdog import Watchdog

{before}
with Watchdog(0.4) as watchdog:
    watchdog.enter("score")
    def hang(review):
        time.sleep(60)
    try:
        hang("the text of a review")
    finally:
        print("cleaned up", flush=True)
"""

MOVING = """
import time
from worker.watchdog import Watchdog

with Watchdog(1.0) as watchdog:
    for _ in range(30):
        watchdog.enter("poll")
        time.sleep(0.05)
    print(watchdog.stage, watchdog.alive)
    watchdog.enter("close")
print("watched" if watchdog._thread.is_alive() else "left")
time.sleep(1.3)
print(watchdog.stage, watchdog.alive)
"""


def run(code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """In a process of its own: where a watchdog is too strict, this one goes on."""
    start = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
    return ended, time.perf_counter() - start


def hang(before: str) -> tuple[subprocess.CompletedProcess[str], float]:
    return run(HANGING.format(before=before))


def test_a_stage_that_hangs_ends_the_process() -> None:
    ended, seconds = hang(before='start_logging("info")')

    assert ended.returncode == EXIT_CODE != 0
    assert seconds < 20
    # No finally block, no close(): they could hang as well, and the next worker settles what was open.
    assert ended.stdout == ""


def test_its_last_words_are_the_stage_and_every_threads_stack() -> None:
    ended, _ = hang(before='start_logging("info")')
    first, *stacks = ended.stderr.splitlines()

    assert json.loads(first)["level"] == "critical"
    assert json.loads(first)["stage"] == "score"
    assert json.loads(first)["seconds"] >= 0.4
    assert any(line.endswith("in hang") for line in stacks)
    assert any(line.endswith("in _watch") for line in stacks)
    assert "the text of a review" not in ended.stderr


def test_the_process_ends_even_if_nothing_can_be_printed() -> None:
    """As where standard error is replaced by something without a file descriptor."""
    ended, seconds = hang(before="import io; sys.stderr = io.StringIO()")

    assert ended.returncode == EXIT_CODE
    assert seconds < 20


def test_a_loop_that_moves_on_is_left_alone_and_so_is_what_comes_after_it() -> None:
    """Longer than the limit in all, but no stage is; and once the block is left, nobody watches any more."""
    ended, _ = run(MOVING)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["poll True", "left", "close False"]


def test_its_thread_never_keeps_a_process_from_ending() -> None:
    assert Watchdog(1)._thread.daemon


def test_it_tells_the_stage_and_its_age() -> None:
    watchdog = Watchdog(0.5)

    watchdog.enter("commit")
    young = watchdog.age_seconds
    assert (watchdog.stage, watchdog.alive) == ("commit", True)

    time.sleep(0.6)
    assert watchdog.age_seconds >= young + 0.6
    assert not watchdog.alive

    watchdog.enter("poll")
    assert watchdog.alive
    assert watchdog.age_seconds < 0.5


def test_a_stage_may_have_a_limit_of_its_own_and_the_next_has_the_usual_one() -> None:
    watchdog = Watchdog(0.05)

    watchdog.enter("rewind", 60)
    time.sleep(0.1)
    assert watchdog.alive

    watchdog.enter("poll")
    time.sleep(0.1)
    assert not watchdog.alive


@pytest.mark.parametrize("limit", [0.05, 1000])
def test_the_limit_is_given_in_seconds(limit: float) -> None:
    watchdog = Watchdog(limit)
    time.sleep(0.1)

    assert watchdog.alive == (limit > 1)
