"""Least rights: the documentation's are enough, none of them is too much, and without one nothing is lost."""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import ACLOperation, ResourceType

from contract.pieces import StubWorker, examined, review, wait_for
from running import Stage
from security.pieces import README, Done, Right, Secured, command, documented_rights, given, taken
from worker.check import Finding, check
from worker.settings import Settings, load_settings

pytestmark = pytest.mark.kafka

WORKER, PUBLISHER, READER, REPLAYER = (
    documented_rights(user) for user in ("worker", "publisher", "reader", "replayer")
)

REFUSED = re.compile(r"this client may not DESCRIBE topic|the broker refuses .*AuthorizationFailedError")


def findings(
    stage: Stage, login: dict[str, str], monkeypatch: pytest.MonkeyPatch, **options: int
) -> dict[str, Finding]:
    """What `check` finds, in this process and without a model."""
    with monkeypatch.context() as patch:
        for name, value in (stage.environment | login).items():
            patch.setenv(name, value)
        settings: Settings = load_settings()
    return {it.name: it for it in check(settings, **options)}


# === Enough ===


def test_with_the_documented_rights_check_is_all_well(secured: Secured, entitled: Stage, tiny_model: Path) -> None:
    """A real forward pass and all."""
    settings = entitled.environment | secured.login("worker")
    done = command("check", "--model", tiny_model, "--json", **settings)
    assert {name: ok for name, (ok, _) in done.findings.items()} == dict.fromkeys(
        ("model", "engine", "http", "broker", "topics", "rights"), True
    )
    assert done.code == 0


def test_with_the_documented_rights_reviews_are_published_scored_and_read(
    secured: Secured, closed: Stage, start_stub: Callable[..., StubWorker], tmp_path: Path
) -> None:
    """Each command comes as a user of its own."""
    file = tmp_path / "reviews.jsonl"
    file.write_bytes(b"\n".join([*(review(number) for number in range(30)), b"not json"]))
    with given(secured, closed, [*WORKER, *PUBLISHER, *READER]):
        worker = start_stub(**secured.login("worker"))
        done = command("publish", file, "--unchecked", **closed.environment | secured.login("publisher"))
        assert done.code == 0, done.err
        closed.wait_until_drained(90)
        read = command("tail", "--from-beginning", "-n", "30", "--json", **closed.environment | secured.login("reader"))
        assert (read.code, read.out.count("\n")) == (0, 30)
        assert worker.stop() == 0
    found = examined(closed)
    assert found.sound, found
    assert (found.predictions, found.dead_letters) == (30, 1)


def test_what_the_largest_message_becomes_is_known_to_who_may_ask(
    secured: Secured, entitled: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = secured.login("worker")
    found = findings(entitled, login, monkeypatch)["topics"]
    assert (found.ok, "not known without DESCRIBE_CONFIGS" in found.detail) == (True, True)
    more = [
        Right("worker", ACLOperation.DESCRIBE_CONFIGS, ResourceType.TOPIC, name, prefixed=False)
        for name in ("reviews", "reviews-dead-letters")
    ]
    with given(secured, entitled, more):
        found = findings(entitled, login, monkeypatch)["topics"]
    assert (found.ok, "DESCRIBE_CONFIGS" in found.detail) == (True, False)


def test_topics_are_made_by_who_may_create_them(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    new, login = Stage(secured.address, partitions=2), secured.login("worker")
    with given(secured, new, WORKER):
        found = findings(new, login, monkeypatch, create_topics=2)["topics"]
        assert not found.ok
        assert "may not CREATE" in found.detail
        more = [
            Right("worker", ACLOperation.CREATE, ResourceType.TOPIC, name, prefixed=False)
            for name in ("reviews", "review-predictions", "reviews-dead-letters")
        ]
        with given(secured, new, more):
            assert findings(new, login, monkeypatch, create_topics=2)["topics"].ok


# === Not too much ===


@pytest.mark.parametrize("right", WORKER, ids=str)
def test_without_one_right_the_worker_ends_and_nothing_is_lost(
    secured: Secured,
    entitled: Stage,
    start_stub: Callable[..., StubWorker],
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    right: Right,
) -> None:
    """It is taken away between two batches of a worker that runs, and given back later."""
    login = secured.login("worker")
    entitled.publish([review(number) if number % 10 else b"not json" for number in range(400)])
    worker = start_stub("first", **login, STUB_SECONDS="0.1", WORKER_BATCH__MAX_REVIEWS="20")
    wait_for(lambda: sum(entitled.committed().values()) >= 40, "the worker commits", 90)
    with taken(secured, entitled, right):
        missing = right.on(entitled).resource_pattern
        assert worker.wait() == 1
        said = Done(1, "", worker.log.read_text(), 0)
        assert "Traceback" not in said.err
        assert REFUSED.search(said.error)
        assert sum(entitled.committed().values()) < 400
        found = findings(entitled, login, monkeypatch)["rights"]
        assert not found.ok
        assert f"this client may not {right.operation.name} " in found.detail
        assert missing.resource_name in found.detail
        again = command("run", "--model", tiny_model, **entitled.environment | login)
        assert again.code == 1
        assert REFUSED.search(again.error)
    start_stub("second", **login)
    entitled.wait_until_drained(90)
    outcome = examined(entitled)
    assert outcome.sound, outcome
    assert (outcome.predictions, outcome.dead_letters) == (360, 40)


@pytest.mark.parametrize("right", PUBLISHER, ids=str)
def test_without_its_right_publish_sends_nothing(secured: Secured, closed: Stage, right: Right) -> None:
    settings = closed.environment | secured.login("publisher")
    done = command("publish", "-", typed=review(1).decode(), **settings)
    assert done.code == 1
    assert f"this client may not DESCRIBE topic {closed.input}; add an ACL for it" in done.error
    assert sum(closed.ends(closed.input).values()) == 0


def test_with_another_right_alone_publish_and_tail_name_their_own(secured: Secured, closed: Stage) -> None:
    """To see a topic is not yet to use it."""
    rights = [
        Right(user, ACLOperation.DESCRIBE, ResourceType.TOPIC, name, prefixed=False)
        for user, name in (("publisher", "reviews"), ("reader", "review-predictions"))
    ]
    with given(secured, closed, rights):
        done = command("publish", "-", typed=review(1).decode(), **closed.environment | secured.login("publisher"))
        assert done.code == 1
        assert f"{closed.input}: the broker did not take a review" in done.error
        assert "AuthorizationFailedError" in done.error
        done = command("tail", "--from-beginning", **closed.environment | secured.login("reader"))
        assert done.code == 1
        assert f"the broker refuses to let you read {closed.output}" in done.error


def test_without_its_right_tail_shows_nothing(secured: Secured, closed: Stage) -> None:
    done = command("tail", **closed.environment | secured.login("reader"))
    assert done.code == 1
    assert f"this client may not DESCRIBE topic {closed.output}; add an ACL for it" in done.error


def reject(stage: Stage) -> None:
    """Put a dead letter as the worker writes it on the stage."""
    headers = [
        ("rejection.reason", b"not_json"),
        ("__connect.errors.topic", stage.input.encode()),
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", b"0"),
    ]
    with closing(KafkaProducer(bootstrap_servers=stage.address)) as producer:
        producer.send(stage.dead, key=b"k", value=b"not json", headers=headers).get(timeout=30)


def test_with_its_rights_replay_puts_back(secured: Secured, closed: Stage) -> None:
    reject(closed)
    with given(secured, closed, REPLAYER):
        done = command("replay", "--json", **closed.environment | secured.login("replayer"))
    assert done.code == 0, done.err
    closed.settle()
    assert [record.value for record in closed.read(closed.input)] == [b"not json"]


@pytest.mark.parametrize("right", REPLAYER, ids=str)
def test_without_one_right_replay_puts_nothing_back(secured: Secured, closed: Stage, right: Right) -> None:
    reject(closed)
    with given(secured, closed, REPLAYER), taken(secured, closed, right):
        done = command("replay", **closed.environment | secured.login("replayer"))
    assert done.code == 1
    assert right.on(closed).resource_pattern.resource_name in done.error
    closed.settle()
    assert closed.read(closed.input) == []


def test_the_table_for_people_has_the_rights_that_the_commands_give() -> None:
    """The tests give what the documentation's commands give."""
    users = {"run": "worker", "publish": "publisher", "tail": "reader", "replay": "replayer"}
    row = re.compile(r"^\| (?:`(\w+)`.*?)? ?\| (\w+) \| (topic|group|transactional id)s?\b.*?`(\S+)` \|", re.MULTILINE)
    table, user = [], ""
    for command_name, operation, kind, name in row.findall(README.read_text(encoding="utf-8")):
        user = users.get(command_name, user)
        table.append((user, f"{operation.upper()} {kind} {name}"))
    assert table == [(right.user, str(right)) for user in users.values() for right in documented_rights(user)]
