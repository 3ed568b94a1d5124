"""The commands as a user runs them: processes, with their exit codes, what they print where, and one clear line for
everything that can be wrong."""

import gzip
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ACLOperation, ResourceType

from contract.pieces import Done, StubWorker, denied, nobody_listens, paused, review, visible, wait_for
from running import ROOT, Broker, Stage, Worker
from schemas import ModelName, Prediction, Source
from worker.check import broker_limits
from worker.settings import load_settings
from worker.topics import admin

pytestmark = pytest.mark.kafka

TEXTS = [
    "the movie was great",
    "the movie was bad , and long " * 12,
    "good",
    "great , great , great",
    "not good not bad",
    "a film I would watch again " * 3,
]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The test's own without the settings in it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WORKER_")}
    return clean | dict(variables)


def begin(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(variables),
        cwd=ROOT,
    )


def finish(process: subprocess.Popen[str], began: float, given: str | None = None) -> Done:
    with process:
        try:
            out, err = process.communicate(given, timeout=60)
        finally:
            process.kill()
    return Done(process.returncode, out, err, time.monotonic() - began)


def command(*arguments: str | Path, given: str | None = None, **variables: str) -> Done:
    """Run `review-worker` to its end."""
    began = time.monotonic()
    return finish(begin(*arguments, **variables), began, given)


# === What can be wrong ===


def test_without_a_broker_every_command_says_so_within_15_seconds(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(review(1))
    address = nobody_listens()
    commands = {
        "run": ("run", "--model", tiny_model, "--port", "0"),
        "check": ("check", "--set", "http.port=0"),
        "publish": ("publish", file),
        "tail": ("tail",),
    }
    began = time.monotonic()
    started = {name: begin(*arguments, WORKER_KAFKA__BOOTSTRAP_SERVERS=address) for name, arguments in commands.items()}
    ended = {name: finish(process, began) for name, process in started.items()}
    for name, done in ended.items():
        assert done.code == 1, name
        assert done.in_time, name
        # A line of the fix stands below it.
        line = done.error if name != "check" else done.out.splitlines()[-2]
        assert f"no broker answered at {address} within 8 s: KafkaConnectionError: 111 ECONNREFUSED" in line, name
        assert "WORKER_KAFKA__BOOTSTRAP_SERVERS" in line, name


def test_a_missing_topic_is_named_by_every_command(stage: Stage, tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(review(1))
    commands = {
        "run": (("run", "--model", tiny_model), "INPUT"),
        "publish": (("publish", file), "INPUT"),
        "tail": (("tail",), "OUTPUT"),
    }
    for name, (arguments, topic) in commands.items():
        done = command(*arguments, **stage.environment | {f"WORKER_KAFKA__{topic}_TOPIC": "no-such-topic"})
        assert done.code == 1, name
        assert "topic no-such-topic does not exist; `review-worker check --create-topics` makes" in done.error, name


def test_publish_and_tail_need_no_topic_but_their_own(stage: Stage) -> None:
    others = {"INPUT": "no-input", "OUTPUT": "no-output", "DEAD_LETTER": "no-dead-letters"}
    missing = {f"WORKER_KAFKA__{name}_TOPIC": topic for name, topic in others.items()}
    own = {"WORKER_KAFKA__INPUT_TOPIC": stage.input}
    assert command("publish", "-", given=review(1).decode(), **stage.environment | missing | own).code == 0
    own = {"WORKER_KAFKA__OUTPUT_TOPIC": stage.output}
    assert command("tail", "--idle", "0.5", **stage.environment | missing | own).code == 0


def test_a_topic_that_may_not_be_seen_is_named_as_that(fragile: Stage) -> None:
    with denied(fragile, ResourceType.TOPIC, fragile.output, ACLOperation.DESCRIBE):
        done = command("tail", **fragile.environment)
    assert done.code == 1
    assert f"this client may not DESCRIBE topic {fragile.output}; add an ACL for it" in done.error


def test_a_missing_or_altered_model_leaves_the_group_untouched(
    stage: Stage, tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    stage.publish([review(1)])
    folder = tiny_artifact(tmp_path / "models")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    for model, expected in (
        (tmp_path / "nowhere", "no such model folder"),
        (folder, "model.safetensors does not match the manifest; it was altered"),
    ):
        done = command("run", "--model", model, **stage.environment)
        assert done.code == 1
        assert expected in done.error
        assert str(model) in done.error
    admin = KafkaAdminClient(bootstrap_servers=stage.address)
    try:
        assert stage.name not in {group["group_id"] for group in admin.list_groups()}, "it joined the group"
    finally:
        admin.close()
    assert stage.committed() == {}


WRONG_SETTINGS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "a misspelt variable": ((), {"WORKER_KAFKA__GROUPID": "x"}, "did you mean WORKER_KAFKA__GROUP_ID?"),
    "a variable that is no setting": (
        (),
        {"WORKER_COLOUR": "red"},
        "environment variable WORKER_COLOUR: no such setting",
    ),
    "an unreadable section": ((), {"WORKER_KAFKA": "{"}, "a section in one variable is a JSON object"),
    "no value": (("--set", "kafka.group_id"), {}, "--set kafka.group_id: write NAME=VALUE"),
    "an unknown setting": (
        ("--set", "kafka.groupid=x"),
        {},
        "kafka.groupid: no such setting; did you mean kafka.group_id?",
    ),
    "a contradiction": (("--set", "kafka=x", "--set", "kafka.group_id=y"), {}, "contradicts an earlier flag"),
    "a value out of range": (
        ("--set", "http.port=70000"),
        {},
        "setting http.port: Input should be less than or equal to 65535",
    ),
    "a missing file": (("--config", "nowhere.toml"), {}, "--config nowhere.toml: no such file"),
}


@pytest.mark.parametrize("wrong", WRONG_SETTINGS)
def test_a_wrong_setting_is_named_with_what_is_accepted(wrong: str) -> None:
    arguments, variables, expected = WRONG_SETTINGS[wrong]
    done = command("tail", *arguments, **variables)
    assert done.code == 2
    assert expected in done.error


def test_a_broken_toml_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[kafka]\ngroup_id = \n")
    done = command("tail", "--config", file)
    assert done.code == 2
    assert f"--config {file}: not a readable TOML file: Invalid value (at line 2" in done.error


def test_a_port_in_use_is_named(stage: Stage, tiny_model: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("run", "--model", tiny_model, "--port", str(port), **stage.environment)
    assert done.code == 2
    assert f"127.0.0.1:{port}: Address already in use; is another worker running?" in done.error
    assert "WORKER_HTTP__PORT" in done.error


@pytest.mark.parametrize("name", ["run", "check", "config", "score", "publish", "tail", "replay"])
def test_the_help_of_every_command_shows_how_it_is_used(name: str) -> None:
    done = command(name, "--help", COLUMNS="100", NO_COLOR="1")
    assert done.code == 0
    assert f"review-worker {name} " in done.out, "no example"
    assert "Usage:" in done.out
    options = re.findall(r"--[a-z-]+", done.out)
    assert "--config" in options
    assert done.err == ""


def test_without_a_command_the_whole_way_is_shown() -> None:
    done = command(COLUMNS="100", NO_COLOR="1")
    for name in ("check", "run", "publish", "tail"):
        assert f"review-worker {name}" in done.out


# === publish ===


def published(stage: Stage) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of everything on the input topic."""
    records = [(record.key, record.value) for record in stage.read(stage.input)]
    return sorted(records, key=lambda record: record[0] or b"")


CSV = 'review_id,stars,text\na,5,"good, very good"\nb,1,\nc,2,"two\nlines"\n'


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_reviews_of_a_file_are_published_and_bad_rows_named(stage: Stage, tmp_path: Path, kind: str) -> None:
    lines = [
        '{"review_id": "a", "text": "good, very good"}',
        '{"review_id": "b", "text": ""}',
        "",
        '{"review_id": "c", "text": "two\\nlines"}',
    ]
    content = (CSV if kind.startswith("csv") else "\n".join(lines)).encode()
    file = tmp_path / f"reviews.{kind}"
    file.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    done = command("publish", file, **stage.environment)
    assert done.code == 0
    refused, summary = done.err.splitlines()
    assert refused == f"{file}: record 2: out_of_bounds: text: String should have at least 1 character"
    assert summary.startswith(f"2 published to {stage.input}, 1 refused, ")
    assert done.out == ""
    assert [(key, json.loads(value or b"")) for key, value in published(stage)] == [
        (b"a", {"review_id": "a", "text": "good, very good"}),
        (b"c", {"review_id": "c", "text": "two\nlines"}),
    ]


def test_standard_input_is_published_and_the_summary_is_json_when_asked(stage: Stage) -> None:
    done = command("publish", "-", "--json", given=f"{review(1).decode()}\nnot json\n", **stage.environment)
    assert done.code == 0
    summary = json.loads(done.out)
    assert (summary["sent"], summary["refused"]) == (1, 1)
    assert "-: record 2: not_json: " in done.error
    assert published(stage) == [(b"r1", review(1))]


def test_a_pipe_is_a_file(stage: Stage, tmp_path: Path) -> None:
    """As a shell's `<(zcat …)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = begin("publish", pipe, **stage.environment)
    began = time.monotonic()
    with pipe.open("wb") as stream:
        stream.write(review(1))
    assert finish(process, began).code == 0
    assert published(stage) == [(b"r1", review(1))]


def test_unchecked_sends_what_the_worker_would_refuse(stage: Stage) -> None:
    lines = f"not json\n{review(1).decode()}\n"
    done = command("publish", "-", "--unchecked", "--json", given=lines, **stage.environment)
    assert done.code == 0
    assert json.loads(done.out)["sent"] == 2
    assert published(stage) == [(None, b"not json"), (b"r1", review(1))]


def test_rate_and_limit_hold(stage: Stage) -> None:
    lines = "\n".join(review(number).decode() for number in range(100))
    done = command("publish", "-", "--rate", "20", "--limit", "21", "--json", given=lines, **stage.environment)
    summary = json.loads(done.out)
    assert summary["sent"] == 21
    assert 1.0 <= summary["seconds"] < 9
    assert len(published(stage)) == 21


def test_a_broker_that_stops_answering_ends_publish_with_one_line(fragile_broker: Broker, fragile: Stage) -> None:
    lines = "\n".join(review(number).decode() for number in range(150))
    began = time.monotonic()
    process = begin("publish", "-", "--rate", "50", WORKER_KAFKA__REQUEST_TIMEOUT_SECONDS="1", **fragile.environment)
    assert process.stdin is not None
    process.stdin.write(lines)
    process.stdin.close()
    process.stdin = None
    wait_for(lambda: sum(fragile.ends(fragile.input).values()) > 10, "reviews arrive")
    with paused(fragile_broker):
        done = finish(process, began)
    assert done.code == 1
    assert f"{fragile.input}: the broker did not take a review: " in done.error


def damaged(content: bytes) -> bytes:
    """A gzip file with a hole in it."""
    compressed = bytearray(gzip.compress(content))
    compressed[15:25] = b"\xff" * 10
    return bytes(compressed)


WRONG_FILES: dict[str, tuple[str, bytes | None, str]] = {
    "no file": ("reviews.csv", None, "no such file"),
    "another column": (
        "reviews.csv",
        b"review,stars\ngood,5\n",
        "needs a column 'text'; its first line has: review, stars",
    ),
    "nothing": ("reviews.csv", b"", "needs a column 'text'; its first line has: nothing"),
    "Latin-1": ("reviews.csv", b"review_id,text\n1,caf\xe9\n", "not UTF-8"),
    "half a gzip": ("reviews.csv.gz", gzip.compress(CSV.encode())[:50], "cannot be read: Compressed file ended before"),
    "a damaged gzip": ("reviews.csv.gz", damaged(CSV.encode() * 20), "cannot be read: "),
    "no gzip": ("reviews.jsonl.gz", b"{}", "cannot be read: Not a gzipped file"),
}


@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_file_that_cannot_be_read_is_named_with_what_is_accepted(stage: Stage, tmp_path: Path, wrong: str) -> None:
    name, content, expected = WRONG_FILES[wrong]
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    done = command("publish", file, **stage.environment)
    assert done.code == 2
    assert str(file) in done.error
    assert expected in done.error


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    done = command("publish", tmp_path)
    assert done.code == 2
    assert f"{tmp_path}: a folder, not a file" in done.error


# === tail ===


def predict(stage: Stage, number: int) -> bytes:
    """A prediction on the output topic; its value."""
    prediction = Prediction(
        review_id=f"review-{number}",
        label="positive" if number % 2 else "negative",
        label_id=number % 2,
        confidence=0.875,
        probabilities={"negative": 0.875, "positive": 0.125},
        model=ModelName(name="m", version=1, digest="sha256:" + "0" * 64),
        source=Source(topic=stage.input, partition=0, offset=number),
        tokens=12,
        truncated=False,
        scored_at=datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
    )
    producer = KafkaProducer(bootstrap_servers=stage.address)
    try:
        value = prediction.model_dump_json().encode()
        producer.send(stage.output, value=value, partition=0).get(timeout=30)
    finally:
        producer.close(timeout=10)
    return value


def test_tail_shows_lines_for_people_and_json_for_programs(stage: Stage) -> None:
    values = [predict(stage, number).decode() for number in range(3)]
    everything = ("tail", "--from-beginning", "--idle", "1")
    assert command(*everything, "--json", **stage.environment).out.splitlines() == values
    assert command(*everything, "--json", "--count", "2", **stage.environment).out.splitlines() == values[:2]
    done = command(*everything, **stage.environment)
    assert done.out.splitlines() == [
        f"09:30:00  {'positive' if number % 2 else 'negative'}    87.5%    12 tokens  review-{number}"
        for number in range(3)
    ]
    assert (done.code, done.err) == (0, "")


def test_tail_begins_with_the_next_prediction_and_an_interrupt_ends_it(stage: Stage) -> None:
    predict(stage, 1)
    process = begin("tail", "--json", **stage.environment)
    began = time.monotonic()
    assert process.stdout is not None
    # It says nothing when it stands at the end, so that predictions are sent until the first one is seen.
    shown: list[str] = []
    for number in range(2, 200):
        predict(stage, number)
        os.set_blocking(process.stdout.fileno(), False)
        shown += process.stdout.readlines()
        if shown:
            break
    os.set_blocking(process.stdout.fileno(), True)
    process.send_signal(signal.SIGINT)
    done = finish(process, began)
    assert json.loads(shown[0])["review_id"] != "review-1"
    assert (done.code, done.err) == (130, "interrupted\n")


def test_tail_ends_quietly_with_its_reader(stage: Stage) -> None:
    """As in `tail | head -1`: typer ends with 1, and says nothing."""
    predict(stage, 1)
    process = begin("tail", "--from-beginning", "--json", **stage.environment)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    for number in range(2, 5):
        predict(stage, number)
    with process:
        assert process.stderr is not None
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == ""


def test_predictions_of_a_transaction_are_shown_once_it_is_committed(stage: Stage) -> None:
    producer = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-other")
    producer.init_transactions()
    try:
        for number, end in enumerate((producer.abort_transaction, producer.commit_transaction)):
            producer.begin_transaction()
            producer.send(stage.output, value=b"%d" % number, partition=0).get(timeout=30)
            end()
    finally:
        producer.close(timeout=10)
    wait_for(lambda: visible(stage, stage.output), "the committed one is visible")
    done = command("tail", "--from-beginning", "--json", "--count", "1", **stage.environment)
    assert done.out == "1\n"


# === tail in a terminal ===


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command in a terminal of 120 columns, and the terminal."""
    own, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment(variables) | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
        cwd=ROOT,
        start_new_session=True,
    )
    os.close(its)
    try:
        yield process, own
    finally:
        process.kill()
        process.wait()
        os.close(own)


def read_until(own: int, expected: str, seen: str = "") -> str:
    """What the terminal was sent, until it holds `expected`."""
    while expected not in seen:
        seen += os.read(own, 65_536).decode(errors="replace")
    return seen


def read_to_the_end(own: int, seen: str) -> str:
    try:
        while more := os.read(own, 65_536):
            seen += more.decode(errors="replace")
    except OSError:  # how Linux says that the other end is closed
        pass
    return seen


def plain(text: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


def test_a_terminal_gets_a_live_table_that_ends_cleanly(stage: Stage) -> None:
    for number in range(3):
        predict(stage, number)
    with terminal("tail", "--from-beginning", "--count", "3", **stage.environment) as (process, own):
        shown = read_to_the_end(own, read_until(own, "review-2"))
        assert process.wait(timeout=30) == 0
    assert HIDE_CURSOR in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR), "the cursor stays hidden"
    last = plain(shown[shown.rindex("scored") :])
    for expected in ("review-0", "review-1", "review-2", "87.5%", f"{stage.input}/0/2", "3 predictions"):
        assert expected in last
    assert "negative 67%, positive 33%" in last
    assert plain(shown).endswith("\n")


def test_an_interrupt_ends_the_live_table_cleanly(stage: Stage) -> None:
    predict(stage, 1)
    with terminal("tail", "--from-beginning", **stage.environment) as (process, own):
        shown = read_until(own, "review-1")
        process.send_signal(signal.SIGINT)
        shown = read_to_the_end(own, shown)
        assert process.wait(timeout=30) == 130
    assert "Traceback" not in shown
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR), "the cursor stays hidden"
    assert plain(shown).endswith("interrupted\r\n")


# === check, score and run with the real engine ===


def test_check_makes_the_topics_and_finds_all_well(stage: Stage, tiny_model: Path) -> None:
    new = Stage(stage.address, 2)
    done = command("check", "--model", tiny_model, "--create-topics", "--partitions", "2", "--json", **new.environment)
    assert done.code == 0, done.out
    assert done.err == ""
    findings = {it["name"]: it for it in map(json.loads, done.out.splitlines())}
    assert list(findings) == ["model", "engine", "http", "broker", "topics", "rights"]
    assert all(it["ok"] for it in findings.values())
    assert "a sample scored" in findings["engine"]["detail"]
    assert f"made {new.input}, {new.output}, {new.dead}" in findings["topics"]["detail"]
    assert set(new.ends(new.input)) == {0, 1}


def test_check_tells_what_failed_and_exits_1(stage: Stage) -> None:
    done = command("check", **stage.environment)
    assert done.code == 1
    first, fix, *others = done.out.splitlines()
    assert first.startswith("fail model    no model: set WORKER_MODEL or --model")
    assert fix == "     fix:     WORKER_MODEL=models/NAME, or --model models/NAME"
    assert [line[:4] for line in others] == ["ok  "] * 4


def test_check_names_every_topic_that_is_missing_with_the_command_that_makes_them(stage: Stage) -> None:
    new = Stage(stage.address, 2)
    done = command("check", "--json", **new.environment)
    assert done.code == 1
    findings = {it["name"]: it for it in map(json.loads, done.out.splitlines())}
    for name in (new.input, new.output, new.dead):
        assert f"topic {name} does not exist" in findings["topics"]["detail"]
    assert findings["topics"]["fix"] == "review-worker check --create-topics --partitions 3"


def test_check_knows_the_bounds_of_the_broker(stage: Stage) -> None:
    """With its own tools' names and units; a setting outside of them is found before a worker runs."""
    with admin(load_settings(None, {"kafka": {"bootstrap_servers": stage.address}}).kafka) as client:
        (broker,) = client.describe_cluster()["brokers"]
        limits = broker_limits(client, str(broker["broker_id"]))
    assert limits == {
        "transaction.max.timeout.ms": 900,
        "group.max.session.timeout.ms": 1800,
        "group.min.session.timeout.ms": 1,
    }


def test_a_file_is_scored_like_the_topic(
    stage: Stage, start: Callable[..., Worker], tiny_model: Path, tmp_path: Path
) -> None:
    """The same labels and probabilities, the same reviews refused; only the company in a batch differs."""
    reviews = [{"review_id": f"r{number}", "text": TEXTS[number % len(TEXTS)]} for number in range(60)]
    reviews[7]["text"] = " "
    file, target = tmp_path / "reviews.jsonl", tmp_path / "predictions.jsonl"
    file.write_text("\n".join([*map(json.dumps, reviews), "not json"]))
    start(tiny_model)
    assert command("publish", file, "--unchecked", **stage.environment).code == 0
    done = command("score", file, target, "--model", tiny_model)
    assert done.code == 0
    assert [line for line in done.err.splitlines() if "record" in line] == [
        f"{file}: record 8: out_of_bounds: text: has no visible character",
        f"{file}: record 61: not_json: Invalid JSON: expected ident at line 1 column 2",
    ]
    assert "59 predictions, 2 refused" in done.err
    stage.wait_until_drained(60)
    offline = [Prediction.model_validate_json(line) for line in target.read_text().splitlines()]
    routed = [Prediction.model_validate_json(record.value) for record in visible(stage, stage.output)]
    assert [it.review_id for it in offline] == [f"r{number}" for number in range(60) if number != 7]
    by_id = {it.review_id: it for it in routed}
    assert len(routed) == len(by_id) == 59
    for one in offline:
        other = by_id[one.review_id]
        assert (one.label, one.tokens, one.truncated, one.model) == (
            other.label,
            other.tokens,
            other.truncated,
            other.model,
        )
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    reasons = sorted(dict(record.headers)["rejection.reason"] for record in visible(stage, stage.dead))
    assert reasons == [b"not_json", b"out_of_bounds"]


def test_run_says_what_it_does_in_json_lines(stage: Stage, start_stub: Callable[..., StubWorker]) -> None:
    worker = start_stub()
    worker.wait_until_ready()
    assert worker.stop() == 0
    lines = worker.log.read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "starting",
        "model ready",
        "partitions assigned",
        "stopped",
    ]
