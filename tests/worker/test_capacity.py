"""What a stream needs, against numbers that were worked out by hand, and against what a broker really writes."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from contract.pieces import next_batch, opened_outbox, opened_source, review
from running import ROOT, Broker, Stage
from worker.capacity import (
    INPUT_PARTITION_BYTES,
    OUTPUT_PARTITION_BYTES,
    TRANSACTION_BYTES,
    Figures,
    Need,
    make_plan,
    need,
    read_figures,
    rows,
)
from worker.errors import UsageError
from worker.letters import Outgoing

FIFTY = {"reviews_per_second": 50.0, "input_bytes": 900.0, "output_bytes": 300.0}


def needed(target: float = 1_000, figures: dict[str, Any] | None = None, **plan: Any) -> Need:
    return need(Figures(**figures or FIFTY), make_plan(**plan), target)


# === Workers ===


def test_workers_are_enough_at_the_utilization_and_one_is_to_spare() -> None:
    # 1,000 / (50 x 0.7) = 28.6
    assert needed().workers == 30
    assert needed(spare=0).workers == 29
    assert needed().busy == pytest.approx(1_000 / 1_500)


@pytest.mark.parametrize(("utilization", "workers"), [(0.5, 4), (0.8, 3), (0.1, 20), (0.99, 3)])
def test_a_whole_number_of_workers_is_not_one_more(utilization: float, workers: int) -> None:
    assert needed(100, utilization=utilization, spare=0).workers == workers


def test_a_stream_of_almost_nothing_needs_one_worker() -> None:
    assert needed(0.001, spare=0).workers == 1
    assert needed(0.001, FIFTY | {"reviews_per_second": 1e9}, spare=0).workers == 1


def test_a_day_has_86_400_seconds() -> None:
    assert needed().reviews_a_day == 86_400_000


# === Partitions ===


@pytest.mark.parametrize(("utilization", "each"), [(0.3, 2), (0.5, 2), (0.7, 3), (0.75, 3), (0.8, 4), (0.9, 9)])
def test_each_worker_has_so_many_partitions_that_the_others_keep_up_when_one_is_lost(
    utilization: float, each: int
) -> None:
    it = needed(utilization=utilization, spare=0)

    assert it.partitions == each * it.workers
    assert it.busiest_when_one_is_lost is not None
    assert it.busiest_when_one_is_lost <= 1


def test_a_worker_with_one_partition_more_sets_the_pace() -> None:
    # 90 partitions on 29 workers: one has 4, a 22.5th of 1,000 reviews/s.
    assert needed().busiest_when_one_is_lost == pytest.approx(1_000 / 22.5 / 50)
    assert needed(10, spare=0).busiest_when_one_is_lost is None


def test_partitions_can_be_given() -> None:
    assert needed(partitions_per_worker=10).partitions == 300
    assert needed(partitions_per_worker=1).partitions == 30


# === After an outage ===


def test_a_backlog_is_drained_with_what_is_left_beside_the_stream() -> None:
    # 1,800 s of 1,000 reviews/s, drained with 30 x 50 - 1,000.
    assert needed().drain_minutes == 60
    assert needed(outage_minutes=15).drain_minutes == 30


def test_workers_that_drain_in_time_are_counted_by_whole_partitions() -> None:
    assert needed(drain_minutes=60).workers_to_drain == 30
    # Not fewer than there are, although 23 could.
    assert needed(outage_minutes=1, drain_minutes=600).workers_to_drain == 30
    # 1,000 x (1 + 30 / 30) / 50 = 40 workers' work: 2 of 90 partitions are the most for one, so that 45 are needed.
    assert needed(drain_minutes=30).workers_to_drain == 45
    # With 300 partitions one can have 7.
    assert needed(drain_minutes=30, partitions_per_worker=10).workers_to_drain == 43


def test_there_is_a_partition_for_each_worker_that_drains() -> None:
    # 1,000 x (1 + 30 / 5) / 50 = 140, and 30 x 3 partitions are too few for them.
    it = needed(drain_minutes=5)

    assert (it.partitions, it.workers_to_drain) == (150, 150)


# === Brokers ===


def test_everything_is_written_in_copies_and_reviews_are_read_once() -> None:
    it = needed()

    # 50 reviews a transaction: 20 a second, each 757 + 3 x 62 + 50 x 93 bytes.
    assert it.transactions_per_second == 20
    assert it.transaction_bytes_per_second == 20 * 5_593
    written = 900_000 + 300_000 + 111_860
    assert it.broker_in_bytes_per_second == 3 * written
    assert it.copies_bytes_per_second == 2 * written
    assert it.broker_out_bytes_per_second == 900_000 + 300_000 + 2 * written


def test_every_reader_reads_all_predictions() -> None:
    assert needed(readers=3).broker_out_bytes_per_second - needed(readers=0).broker_out_bytes_per_second == 900_000


def test_a_single_copy_goes_nowhere_else() -> None:
    it = needed(replication=1)

    assert it.copies_bytes_per_second == 0
    assert it.broker_in_bytes_per_second == 1_311_860


def test_a_transaction_has_no_more_partitions_than_reviews() -> None:
    it = needed(figures=FIFTY | {"reviews_per_transaction": 2.0})

    assert it.transactions_per_second == 500
    assert it.transaction_bytes_per_second == 500 * (757 + 2 * 62 + 2 * 93)


@pytest.mark.parametrize(("speed", "batch"), [(0.5, 1), (300, 300), (9_000, 2_000)])
def test_a_batch_is_what_the_default_settings_allow(speed: float, batch: float) -> None:
    assert Figures(**FIFTY | {"reviews_per_second": speed}).batch == batch


def test_storage_is_a_day_of_all_copies_times_the_days_that_it_is_kept() -> None:
    it = needed(input_retention_days=2, output_retention_days=0.5)

    assert it.input_bytes_a_day == 86_400 * 900_000 * 3
    assert it.output_bytes_a_day == 86_400 * 300_000 * 3
    assert it.input_bytes_kept == 2 * it.input_bytes_a_day
    assert it.output_bytes_kept == it.output_bytes_a_day / 2


def bytes_written(stage: Stage) -> int:
    """By the broker, for predictions and for what it notes of groups and transactions, once it writes no more."""
    topics = {stage.output, "__consumer_offsets", "__transaction_state"}
    admin = KafkaAdminClient(bootstrap_servers=stage.address)
    try:
        before = -1
        while True:
            folders = [folder for broker in admin.describe_log_dirs() for folder in broker["log_dirs"]]
            found = [topic for folder in folders for topic in folder["topics"] if topic["name"] in topics]
            total = sum(partition["partition_size"] for topic in found for partition in topic["partitions"])
            if total == before:
                return total
            before = total
            time.sleep(0.3)
    finally:
        admin.close()


@pytest.mark.kafka
def test_a_broker_writes_so_many_bytes_for_a_transaction(kafka: Broker) -> None:
    """For offsets, states and markers. The records themselves, and the header of the batch that they are in, are what a
    log without transactions holds too."""
    stage = Stage(kafka.address, 12)
    stage.make_topics()
    stage.publish([review(number) for number in range(24)])
    header, record, times = 61, 57, 15
    with opened_source(stage) as source, opened_outbox(stage, compression="none") as outbox:
        membership = next_batch(source).membership
        for inputs, outputs in ((1, 1), (12, 1), (1, 12)):
            positions = {TopicPartition(stage.input, n): OffsetAndMetadata(1, "", -1) for n in range(inputs)}
            records = [Outgoing(stage.output, n, None, b"x" * 50, []) for n in range(outputs)]
            outbox.publish(records, positions, membership)
            before = bytes_written(stage)
            for _ in range(times):
                outbox.publish(records, positions, membership)
            stage.settle()
            found = (bytes_written(stage) - before) / times - outputs * (header + record)
            formula = TRANSACTION_BYTES + INPUT_PARTITION_BYTES * inputs + OUTPUT_PARTITION_BYTES * outputs
            assert found == pytest.approx(formula, rel=0.1), (inputs, outputs)


# === What the user gives ===


def written(folder: Path, text: str) -> str:
    path = folder / "figures.json"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_figures_come_from_a_file_with_other_things_in_it_and_options_win(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(FIFTY | {"device": "2 cores", "seconds": [1, 2]}))

    found = read_figures(path, {"input_bytes": 800.0, "output_bytes": None})

    assert found == Figures(**FIFTY | {"device": "2 cores", "input_bytes": 800.0})


def test_figures_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(FIFTY)))

    assert read_figures("-", {}) == Figures(**FIFTY)


@pytest.mark.parametrize(
    ("text", "given", "line"),
    [
        (None, {}, "no reviews_per_second: give --reviews-per-second, or --from FILE with it"),
        ("{}", {"reviews_per_second": 1.0}, "no input_bytes: give --input-bytes, or --from FILE with it"),
        ("[1]", {}, "--from FILE: not a JSON object with reviews_per_second, input_bytes and output_bytes"),
        ("{", {}, "--from FILE: not JSON in UTF-8: Expecting property name"),
        ('{"reviews_per_second": "50"}', {}, "--from FILE: reviews_per_second: Input should be a valid number"),
        ('{"reviews_per_second": NaN}', {}, "--from FILE: reviews_per_second: Input should be a finite number"),
        ("{}", {"reviews_per_second": 0.0}, "--reviews-per-second: Input should be greater than or equal to 0.001"),
        ("{}", {"reviews_per_second": 1.0, "input_bytes": -1.0}, "--input-bytes: Input should be greater than 0"),
    ],
)
def test_a_figure_that_cannot_be_used_is_one_line(
    tmp_path: Path, text: str | None, given: dict[str, Any], line: str
) -> None:
    path = None if text is None else written(tmp_path, text)

    with pytest.raises(UsageError) as caught:
        read_figures(path, given)

    assert str(caught.value).replace(str(path), "FILE").startswith(line)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="--from no-such-file: No such file or directory"):
        read_figures("no-such-file", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("utilization", 1.0),
        ("utilization", 0.0),
        ("target", (1_000.0, 0.0)),
        ("target", (float("inf"),)),
        ("spare", -1),
        ("replication", 0),
        ("readers", -1),
        ("drain_minutes", 0.0),
        ("outage_minutes", -1.0),
        ("input_retention_days", float("nan")),
        ("partitions_per_worker", 0),
    ],
)
def test_a_plan_that_is_impossible_names_the_option(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')}: Input should be"):
        make_plan(**{name: value})


# === The command ===

OPTIONS = ("--reviews-per-second", "50", "--input-bytes", "900", "--output-bytes", "300")


def capacity(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "capacity", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_the_command_prints_every_line_for_every_target_uncut() -> None:
    done = capacity(*OPTIONS, "--device", "2 cores", "--target", "1000", "--target", "1e6")

    assert done.returncode == 0, done.stderr
    assert "One worker on 2 cores: 50 reviews/s, 4,320,000 a day; planned with 70% of it." in done.stdout
    assert "…" not in done.stdout
    shown = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for what, cells in rows(Figures(**FIFTY), make_plan(target=(1_000.0, 1e6))):
        assert " ".join([what.strip(), *cells]) in shown
    assert "workers, a device each, 1 to spare 30 28,573" in shown


def test_the_command_prints_the_same_for_a_program() -> None:
    done = capacity(*OPTIONS, "--target", "1000", "--json")

    found = json.loads(done.stdout)
    assert found["reviews_a_day_per_worker"] == 4_320_000
    assert found["figures"]["reviews_per_transaction"] == 50
    assert found["plan"]["utilization"] == 0.7
    assert found["needs"] == [vars(needed())]


def test_a_mistake_is_one_line_and_exit_status_2() -> None:
    done = capacity(*OPTIONS, "--utilization", "1.5")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --utilization: Input should be less than or equal to 0.99\n"
