"""Check: every failure says what is wrong and how to put it right. The broker of most of these is a stand-in."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import CoordinatorNotAvailableError, NotCoordinatorError

from contract.collector import collecting
from worker import check as module
from worker import topics
from worker.check import FIXES, Finding, check
from worker.errors import BrokerError
from worker.settings import Settings, load_settings
from worker.topics import Topic, forbidden

AWAY = (
    "no broker answered at 127.0.0.1:9092 within 8 s: KafkaConnectionError: 111 ECONNREFUSED. Is it running, and is "
    "WORKER_KAFKA__BOOTSTRAP_SERVERS right?"
)


pytestmark = pytest.mark.usefixtures("own_environment")


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a test says otherwise."""
    answer(AWAY, monkeypatch)


def answer(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects to the broker is told so."""

    @contextmanager
    def admin(_: Any) -> Iterator[Any]:
        raise BrokerError(said)
        yield

    monkeypatch.setattr(module, "admin", admin)


def settings_with(**sections: Any) -> Settings:
    """With a free port."""
    return load_settings(None, {"http": {"port": 0}} | sections)


def failure(name: str, settings: Settings, create_topics: int | None = None) -> tuple[str, str]:
    """What is wrong, and the fix."""
    (found,) = [it for it in check(settings, create_topics) if it.name == name]
    assert not found.ok
    assert found.fix
    assert "\n" not in found.detail
    assert "Traceback" not in found.detail
    return found.detail, found.fix


def test_every_failure_has_a_fix() -> None:
    for name, fixes in FIXES.items():
        *_, (last, _) = fixes
        assert last == "", f"a failure of {name} may have none"
        assert all(fix for _, fix in fixes)
    assert set(FIXES) == {"model", "engine", "tracing", "broker", "topics", "rights"}


def test_what_is_well_has_none() -> None:
    (found,) = [it for it in check(settings_with()) if it.name == "http"]

    assert found == Finding("http", True, "127.0.0.1:0 is free", None)


# --- model and engine ---


def test_without_a_model_the_setting_is_named() -> None:
    detail, fix = failure("model", settings_with())

    assert "no model" in detail
    assert "WORKER_MODEL=" in fix


def test_a_model_that_is_not_there_is_exported(tmp_path: Path) -> None:
    detail, fix = failure("model", settings_with(model=tmp_path / "nowhere"))

    assert str(tmp_path / "nowhere") in detail
    assert "review-trainer export" in fix


def test_a_folder_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    detail, fix = failure("model", settings_with(model=tmp_path))

    assert "holds neither" in detail
    assert "review-trainer export" in fix


def altered(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")


def incomplete(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def richer(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"")


def renamed(folder: Path) -> None:
    folder.rename(folder.with_name("2"))


@pytest.mark.parametrize("harm", [altered, incomplete, richer, renamed])
def test_a_model_that_was_harmed_is_copied_again(
    harm: Callable[[Path], None], tiny_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    harm(tiny_artifact(tmp_path / "models"))
    detail, fix = failure("model", settings_with(model=tmp_path / "models"))

    assert str(tmp_path / "models") in detail
    assert "copy the whole folder again" in fix


def with_engine(
    tiny_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> tuple[str, str]:
    """What is said of an engine that cannot be opened."""

    def refuse(*_: Any, rescore: bool) -> Any:
        raise error

    monkeypatch.setattr(module, "open_engine", refuse)
    return failure("engine", settings_with(model=tiny_artifact(tmp_path / "models")))


def test_an_engine_that_is_not_installed_names_its_extra(
    tiny_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.find_spec", lambda _: None)
    settings = settings_with(model=tiny_artifact(tmp_path / "models"), engine="jax")
    detail, fix = failure("engine", settings)

    assert "pip install 'review-scorer[jax]'" in detail
    assert "WORKER_ENGINE=auto" in fix


def test_a_precision_that_an_engine_lacks_is_named(tiny_artifact: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    settings = settings_with(model=tiny_artifact(tmp_path / "models"), engine="openvino", precision="float16")
    detail, fix = failure("engine", settings)

    assert "float16" in detail
    assert "WORKER_" in fix


@pytest.mark.parametrize("error", [RuntimeError("CUDA_ERROR_NO_DEVICE: no\nmore"), ImportError(""), MemoryError()])
def test_whatever_a_framework_raises_is_one_line(
    error: Exception, tiny_artifact: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detail, fix = with_engine(tiny_artifact, tmp_path, monkeypatch, error)

    assert detail.startswith(type(error).__name__)
    assert "WORKER_ENGINE=tensorflow" in fix


# --- HTTP ---


def test_a_port_that_is_taken_can_be_found() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        detail, fix = failure("http", settings_with(http={"port": port}))

    assert f"127.0.0.1:{port}: Address already in use" in detail
    assert f"ss -ltnp sport = :{port}" in fix
    assert "WORKER_HTTP__PORT=" in fix


def test_an_address_of_another_machine_is_no_taken_port() -> None:
    detail, fix = failure("http", settings_with(http={"host": "192.0.2.1", "port": 0}))

    assert "Cannot assign requested address" in detail
    assert "WORKER_HTTP__HOST=127.0.0.1" in fix


def test_a_port_for_privileged_users_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    found = module._try("http", lambda: module._bind("127.0.0.1", 80))

    assert "Permission denied" in found.detail
    assert "below 1024" in (found.fix or "")


def test_an_address_of_ip_version_6_can_be_listened_on() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    (found,) = [it for it in check(settings_with(http={"host": "::1", "port": 0})) if it.name == "http"]
    assert found.ok, found


# --- tracing ---


def test_without_a_collector_nothing_is_said_of_one() -> None:
    assert "tracing" not in [it.name for it in check(settings_with())]


def test_a_collector_that_takes_spans_is_well() -> None:
    with collecting() as collector:
        settings = settings_with(tracing={"endpoint": collector.url})
        (found,) = [it for it in check(settings) if it.name == "tracing"]

    assert (found.ok, found.detail) == (True, f"{collector.url}/v1/traces takes spans")
    assert collector.spans == []


def test_a_collector_that_takes_none_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with collecting() as collector:
        collector.status = 404
        detail, fix = failure("tracing", settings_with(tracing={"endpoint": collector.url}))

    assert f"{collector.url}/v1/traces" in detail
    assert "4318" in fix
    assert not caplog.records, "a line more than the finding"


# --- broker ---


def test_no_broker_is_started_or_named() -> None:
    detail, fix = failure("broker", settings_with())

    assert detail == AWAY
    assert "WORKER_KAFKA__BOOTSTRAP_SERVERS=" in fix
    assert [it.name for it in check(settings_with())] == ["model", "http", "broker"], "nothing behind it can be tried"


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "admin", topics.admin)
    kafka = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "me",
        "sasl_plain_password_file": tmp_path / "nowhere",
    }
    detail, fix = failure("broker", settings_with(kafka=kafka))

    assert str(tmp_path / "nowhere") in detail
    assert "WORKER_KAFKA__SASL_PLAIN_PASSWORD_FILE" in fix


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("b:1 accepts connections, but did not answer within 8 s; is it", "WORKER_KAFKA__SECURITY_PROTOCOL"),
        ("no broker answered: x. Check WORKER_KAFKA__SSL_CAFILE: it must", "the setting that is named"),
        ("x: certificate is not valid for 'a'. Connect by a name", "with a name that the certificate holds"),
        ("the broker refuses: ClusterAuthorizationFailedError", "review-worker config --changed"),
    ],
)
def test_what_the_broker_refuses_has_its_own_fix(said: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(said, monkeypatch)
    assert fix in failure("broker", settings_with())[1]


class Broker:
    """What `check` asks a broker for, and the answers."""

    def __init__(self) -> None:
        self.configs: dict[str, dict[str, Any]] = {}

    def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{"broker_id": 1}]}

    def describe_configs(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"broker": {"1": self.configs}}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A broker with all topics and rights."""
    made = Broker()

    @contextmanager
    def admin(_: Any) -> Iterator[Broker]:
        yield made

    everything = frozenset({"READ", "WRITE"})
    monkeypatch.setattr(module, "admin", admin)
    monkeypatch.setattr(module, "describe", lambda _, names: [Topic(name, 1, everything) for name in names])
    monkeypatch.setattr(module, "max_message_bytes", lambda _, name: 2_000 if "dead" in name else 1_000)
    monkeypatch.setattr(module, "group_rights", lambda *_: everything)
    monkeypatch.setattr(module, "transaction_rights", lambda *_: None)
    return made


def test_such_a_broker_is_well(broker: Broker) -> None:
    assert [it.name for it in check(settings_with()) if it.ok] == ["http", "broker", "topics", "rights"]


@pytest.mark.parametrize(
    ("bound", "milliseconds", "kafka", "expected"),
    [
        ("transaction.max.timeout.ms", 30_000, {}, "WORKER_KAFKA__TRANSACTION_TIMEOUT_SECONDS=30"),
        ("group.max.session.timeout.ms", 40_000, {}, "WORKER_KAFKA__SESSION_TIMEOUT_SECONDS=40"),
        ("group.min.session.timeout.ms", 6_000, {"session_timeout_seconds": 5}, "SESSION_TIMEOUT_SECONDS=6"),
    ],
)
def test_a_timeout_that_the_broker_does_not_allow_is_named_with_its_bound(
    broker: Broker, bound: str, milliseconds: int, kafka: dict[str, Any], expected: str
) -> None:
    broker.configs = {bound: {"value": str(milliseconds)}}
    detail, fix = failure("broker", settings_with(kafka=kafka))

    assert bound in detail
    assert fix.endswith(expected)
    broker.configs = {bound: {"value": "60000" if "max" in bound else "5000"}}
    assert next(it for it in check(settings_with(kafka=kafka)) if it.name == "broker").ok


# --- topics and rights ---


def test_every_topic_that_is_missing_is_named(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "describe", lambda _, names: [Topic(name, 0, frozenset()) for name in names])
    detail, fix = failure("topics", settings_with())

    for name in ("reviews", "review-predictions", "reviews-dead-letters"):
        assert f"topic {name} does not exist" in detail
    assert fix.startswith("review-worker check --create-topics")


def test_a_topic_that_may_not_be_seen_needs_a_right(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def described(_: Any, names: list[str]) -> list[Topic]:
        return [Topic(name, 0, frozenset(), denied=name == "reviews") for name in names]

    monkeypatch.setattr(module, "describe", described)
    detail, fix = failure("topics", settings_with(kafka={"bootstrap_servers": "a:1,b:2"}))

    assert detail == forbidden("DESCRIBE", "topic reviews")
    assert fix == (
        "kafka-acls --bootstrap-server a:1 --add --allow-principal User:NAME --operation Describe --topic reviews"
    )


def test_topics_that_may_not_be_made_need_a_right(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> list[str]:
        raise BrokerError(forbidden("CREATE", "topics reviews"))

    monkeypatch.setattr(module, "create_missing", refuse)
    detail, fix = failure("topics", settings_with(), create_topics=3)

    assert "may not CREATE" in detail
    assert "--operation Create --topic reviews" in fix


def test_dead_letters_without_room_get_the_command_that_makes_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "max_message_bytes", lambda *_: 1_000)
    detail, fix = failure("topics", settings_with())

    assert "could not become a dead letter" in detail
    assert "kafka-configs --bootstrap-server" in fix
    assert fix.endswith("--entity-name reviews-dead-letters --add-config max.message.bytes=2000")


def test_every_right_that_is_missing_is_named_with_the_command_that_gives_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise BrokerError("no")

    monkeypatch.setattr(module, "describe", lambda _, names: [Topic(name, 1, frozenset()) for name in names])
    monkeypatch.setattr(module, "group_rights", refuse)
    monkeypatch.setattr(module, "transaction_rights", refuse)
    kafka = {
        "bootstrap_servers": "broker:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "the worker",
        "sasl_plain_password": "hunter2",
        "transactional_id": "mine",
    }
    detail, fix = failure("rights", settings_with(kafka=kafka))

    start = "kafka-acls --bootstrap-server broker:9092 --add --allow-principal 'User:the worker' --operation"
    assert fix.splitlines() == [
        f"{start} Read --topic reviews",
        f"{start} Write --topic review-predictions",
        f"{start} Write --topic reviews-dead-letters",
        f"{start} Read --group review-worker",
        f"{start} Write --transactional-id mine",
    ]
    assert detail.count("add an ACL for it") == 5
    assert "hunter2" not in detail + fix


def test_a_group_that_may_be_described_but_not_read_lacks_a_right(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "group_rights", lambda *_: frozenset({"DESCRIBE"}))
    assert "may not READ group review-worker" in failure("rights", settings_with())[0]


def test_a_broker_that_cannot_make_its_internal_topics_says_why(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a broker does that stands alone, with the replication of three."""

    def refuse(*_: Any) -> Any:
        raise CoordinatorNotAvailableError

    monkeypatch.setattr(module, "transaction_rights", refuse)
    detail, fix = failure("rights", settings_with())

    assert "CoordinatorNotAvailableError" in detail
    assert "transaction.state.log.replication.factor" in fix


def test_a_broker_that_is_still_coming_up_is_asked_again(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NotCoordinatorError

    monkeypatch.setattr(module, "group_rights", refuse)
    assert "try again" in failure("rights", settings_with())[1]
