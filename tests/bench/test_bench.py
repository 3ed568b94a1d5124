"""`review-worker bench` in small sizes: on the tiny model, through a real broker, with real processes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import pytest
from kafka import KafkaAdminClient
from kafka.errors import CoordinatorLoadInProgressError

from contract.pieces import administration, nobody_listens, wait_for
from running import ROOT, Broker, broker
from toy import toy_rows, write_csv
from worker.bench.limit import review_flop
from worker.bench.place import own_place
from worker.bench.reviews import make_reviews, records, sized_records
from worker.bench.route import _poll_share, batches_of
from worker.bench.stub import ROW, StubEngine
from worker.bench.suite import HOW_TO_GET_A_BROKER
from worker.bert_config import BertConfig
from worker.capacity import Figures, read_figures
from worker.intake import read_review
from worker.message import Message

TINY = ("--set", "engine=tensorflow", "--set", "precision=float32")


def arguments(*options: object) -> list[str]:
    return [sys.executable, "-m", "worker", "bench", *map(str, options)]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}


def bench(*options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(*options), capture_output=True, text=True, check=False, cwd=ROOT, env=environment(), timeout=280
    )


def left_on(client: KafkaAdminClient) -> list[str]:
    """Topics and groups of a measurement. A broker that is asked for its first group begins to load the groups."""
    deadline = time.monotonic() + 60
    while True:
        try:
            groups = [group["group_id"] for group in client.list_groups()]
            break
        except CoordinatorLoadInProgressError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    return [name for name in [*client.list_topics(), *groups] if name.startswith("bench-")]


# === The command ===


@pytest.mark.kafka
def test_everything_is_measured_and_nothing_is_left_on_the_broker(
    kafka: Broker, tiny_model: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    data = write_csv(tmp_path / "reviews.csv", toy_rows(20, 0))
    sizes = (
        "--data",
        data,
        "--reviews",
        20,
        "--rounds",
        1,
        "--rate",
        20,
        "--stub-reviews",
        200,
        "--backlog",
        300,
        "--backlog",
        600,
    )
    place = ("--model", tiny_model, "--bootstrap-servers", kafka.address)

    done = bench(*place, *TINY, *sizes, "--data", data, "--plot", pictures, "--json")

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["reviews_per_second"] == found["route"]["reviews_per_second"]["median"] > 0
    assert (found["model"], found["device"]) == ("tiny/1", found["engine"]["device"])
    assert (found["engine"]["engine"], found["engine"]["precision"]) == ("tensorflow", "float32")
    assert found["engine"]["reviews"] == found["route"]["reviews"] == found["latency"]["reviews"] == 20
    assert 0 < found["engine"]["padding_ratio"] < 1
    assert found["engine"]["limit_flop_per_second"]["median"] > 0
    assert found["engine"]["share_of_limit"] > 0
    assert set(found["route"]["stages"]) == {"poll", "intake", "tokenize", "score", "commit"}
    assert 0 < found["latency"]["p50"] <= found["latency"]["p99"]
    assert [its["bytes_per_review"] for its in found["stub"]] == [300, 1300]
    assert all(its["reviews_per_transaction"] > 1 for its in found["stub"])
    assert [its["reviews"] for its in found["backlogs"]] == [300, 600]
    assert [its["tokens"] for its in found["lengths"]] == [16, 32, 64]
    # Compressed in the log; a prediction alone has more than 200 bytes of JSON.
    assert 50 < found["output_bytes"] < 2_000
    for name in ("throughput.png", "backlog.png"):
        assert (pictures / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with administration(kafka.address) as client:
        assert left_on(client) == []
    file = tmp_path / "bench.json"
    file.write_text(done.stdout)
    planned = read_figures(str(file), {})
    assert planned == Figures(**{name: found[name] for name in Figures.model_fields})


@pytest.mark.kafka
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_nothing_is_left_on_the_broker_when_it_is_interrupted(
    kafka: Broker, tiny_model: Path, number: signal.Signals, code: int
) -> None:
    options = ("--only", "stub", "--stub-reviews", 100, "--rounds", 10_000)
    with administration(kafka.address) as client:
        process = subprocess.Popen(
            arguments("--model", tiny_model, "--bootstrap-servers", kafka.address, *options),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment() | {"PYTHONFAULTHANDLER": "1"},
        )
        try:
            # The group is there once the worker is.
            wait_for(lambda: len(left_on(client)) == 4, "a worker takes part", 90)
            process.send_signal(number)
            try:
                _, said = process.communicate(timeout=90)
            except subprocess.TimeoutExpired:
                # With the stacks of its threads: where it hangs is all that matters then.
                process.send_signal(signal.SIGABRT)
                pytest.fail(f"it goes on after the signal:\n{process.communicate()[1]}")
        finally:
            process.kill()
            process.wait()

        assert process.returncode == code, said
        assert "Traceback" not in said
        assert left_on(client) == []


@pytest.mark.kafka
def test_a_place_goes_also_from_a_broker_that_never_had_a_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no coordinator yet, and makes its list of groups when it is asked to delete one."""
    with broker(tmp_path) as fresh:
        with own_place(None, {"kafka": {"bootstrap_servers": fresh.address}}, 1) as place:
            pass
        with administration(fresh.address) as client:
            assert place.settings.kafka.input_topic not in client.list_topics()
    assert capsys.readouterr().err == ""


@pytest.mark.kafka
def test_a_worker_that_does_not_start_is_said_in_one_line(kafka: Broker, tiny_model: Path) -> None:
    place = ("--model", tiny_model, "--bootstrap-servers", kafka.address)

    done = bench(*place, "--only", "route", "--engine", "openvino", "--precision", "int8")

    assert done.returncode == 1
    assert "error: the worker ended: error: " in done.stderr
    assert "no int8 form" in done.stderr
    assert "Traceback" not in done.stderr
    with administration(kafka.address) as client:
        assert left_on(client) == []


def test_a_broker_that_is_not_there_is_one_line(tiny_model: Path) -> None:
    place = ("--model", tiny_model, "--bootstrap-servers", nobody_listens())

    done = bench(*place, "--set", "kafka.bootstrap_timeout_seconds=1", "--only", "stub")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no broker answered at ")
    assert done.stderr.count("\n") == 1


def test_a_part_that_needs_a_broker_says_how_to_get_one(tiny_model: Path) -> None:
    done = bench("--model", tiny_model, "--only", "stub")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --only stub needs a broker: {HOW_TO_GET_A_BROKER}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "rout"), "error: --only rout: choose from engine, route, stub\n"),
        (("--data", "nowhere.csv"), "error: nowhere.csv: no such file\n"),
        ((), "error: no model: set WORKER_MODEL or --model to an artefact folder or its parent\n"),
    ],
)
def test_a_mistake_is_one_line(options: tuple[str, ...], said: str) -> None:
    done = bench(*options)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


# === Reviews ===


def test_made_reviews_are_as_long_as_real_ones_and_always_the_same() -> None:
    made = make_reviews(2_000)
    words = [len(review.text.split()) for review in made]

    assert made == make_reviews(2_000)
    assert made != make_reviews(2_000, seed=1)
    assert 165 < median(words) < 190
    assert 220 < sum(words) / len(words) < 250
    # Longer than 512 tokens, at five tokens for four words.
    assert 0.11 < sum(count > 410 for count in words) / len(words) < 0.16


@pytest.mark.parametrize("values", [records(make_reviews(3), 10), sized_records(10, 300)], ids=["real", "sized"])
def test_every_record_is_a_review_with_an_id_of_its_own(values: list[bytes]) -> None:
    read = [read_review(Message("t", 0, 0, None, value), 1 << 20) for value in values]

    assert len({review.review_id for review in read}) == 10  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [100, 300, 1_300])
def test_sized_records_have_that_size(size: int) -> None:
    assert {len(value) for value in sized_records(1_001, size)} == {size}


# === Figures ===


def test_operations_are_counted_with_a_last_layer_for_the_first_token_only() -> None:
    """By hand, for two layers, 3 tokens, width 4, 8 in between and two labels."""
    config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    first = 3 * 4 * 12 + 3 * 4 * 4 + 3 * 4 * 8 + 3 * 8 * 4 + 2 * 3 * 3 * 4
    last = 3 * 4 * 8 + 1 * 4 * 4 + 1 * 4 * 4 + 1 * 4 * 8 + 1 * 8 * 4 + 2 * 1 * 3 * 4
    head = 4 * 4 + 4 * 2

    assert review_flop(config, 3) == 2 * (first + last + head)


def test_predictions_are_told_apart_by_their_batch() -> None:
    def record(batch: bytes, at: int) -> SimpleNamespace:
        return SimpleNamespace(headers=[("ce_type", b"x"), ("ce_time", batch)], timestamp=at)

    found = batches_of([record(b"2", 3_000), record(b"1", 1_000), record(b"2", 4_000), record(b"1", 1_500)])

    assert found == [(2, 1.5), (2, 4.0)]


def test_polls_that_wait_for_a_backlog_and_behind_it_are_not_counted() -> None:
    def said(consumed: float, poll: float) -> dict[str, float]:
        return {"reviews_consumed_total": consumed, "stage_seconds_sum poll": poll}

    seen = [(10.0, said(100, 7.0)), (11.0, said(120, 7.5)), (13.0, said(180, 7.7)), (14.0, said(200, 8.6))]

    assert _poll_share(seen, 200) == pytest.approx(0.1)
    # Too short to tell: all of it.
    assert _poll_share([seen[0], seen[-1]], 200) == pytest.approx(0.4)


@pytest.mark.parametrize(("rate", "seconds"), [(1_000, 0.01), (math.inf, 0)])
def test_a_stub_scores_at_the_rate_that_it_is_told(rate: float, seconds: float) -> None:
    engine = StubEngine(3, rate)
    begun = time.perf_counter()
    scored = engine.submit([ROW.ids] * 10).result()
    took = time.perf_counter() - begun
    engine.close()

    assert (scored.logits.shape, scored.seconds, scored.device_tokens) == ((10, 3), seconds, 10 * len(ROW.ids))
    assert took >= seconds
