"""Check: everything the worker needs, tried one after the other, each with a line of its own. It changes nothing.

What fails comes with the fix: the command to run, or the setting to change.
"""

import errno
import shlex
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from worker.artifact import Artifact
from worker.engine import open_engine
from worker.errors import BrokerError, ReviewScorerError
from worker.scorer import Scorer
from worker.service import open_model, open_tracing
from worker.settings import KafkaSettings, Settings
from worker.topics import (
    DEAD_LETTER_ROOM,
    admin,
    create_missing,
    describe,
    forbidden,
    group_rights,
    max_message_bytes,
    missing,
    topic_names,
    transaction_rights,
)

SAMPLE = "It starts slowly, and then it is wonderful."


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str
    """What was found; for a failure, what is wrong."""
    fix: str | None = None
    """For a failure: commands to run or settings to change, a line each."""


class _UnfitError(BrokerError):
    """Something that was found, with a fix of its own."""

    def __init__(self, detail: str, fix: str) -> None:
        super().__init__(detail)
        self.fix = fix


def check(settings: Settings, create_topics: int | None = None) -> Iterator[Finding]:
    """Try model, engine, HTTP port, broker, topics and rights, and the collector of traces where there is one.

    Args:
        settings: which already hold together.
        create_topics: make missing topics with so many partitions.
    """
    artifact: list[Artifact] = []

    def model() -> str:
        artifact.append(open_model(settings))
        name = artifact[0].name
        return f"{name.name} version {name.version}, {len(artifact[0].manifest.files)} files match their hashes"

    yield _try("model", model)
    if artifact:
        yield _try("engine", lambda: _score_once(artifact[0], settings))
    yield _try("http", lambda: _bind(settings.http.host, settings.http.port))
    if settings.tracing.endpoint is not None:
        yield _try("tracing", lambda: _trace(settings))
    broker = _try("broker", lambda: _reach(settings.kafka))
    yield broker
    if broker.ok:
        yield _try("topics", lambda: _topics(settings.kafka, create_topics))
        yield _try("rights", lambda: _rights(settings))


COORDINATOR_FIX = (
    "on the broker, offsets.topic.replication.factor and transaction.state.log.replication.factor not above the number "
    "of brokers: it cannot make its internal topics"
)

FIXES: dict[str, tuple[tuple[str, str], ...]] = {
    "model": (
        ("no model:", "WORKER_MODEL=models/NAME, or --model models/NAME"),
        ("no such model folder", "review-trainer export RUN --out models/NAME"),
        ("holds neither", "review-trainer export RUN --out models/NAME, and name that folder"),
        ("Permission denied", "make the folder and its files readable for the user that runs the worker"),
        ("", "copy the whole folder again, or write a new version: review-trainer export RUN --out models/NAME"),
    ),
    "engine": (
        ("not installed", "install what is named, or WORKER_ENGINE=auto"),
        ("computes in", "WORKER_PRECISION=auto"),
        ("no int8 form", "review-trainer export RUN --out models/NAME --int8, or WORKER_PRECISION=auto"),
        ("WORKER_CACHE_DIR", "WORKER_CACHE_DIR=DIR, a folder that the worker may write to, or unset it"),
        ("", "WORKER_ENGINE=tensorflow and WORKER_PRECISION=float32 run everywhere"),
    ),
    "tracing": (
        ("not installed", "pip install 'review-scorer[tracing]', or unset WORKER_TRACING__ENDPOINT"),
        ("OTEL_", "correct or unset the variable that is named"),
        ("", "WORKER_TRACING__ENDPOINT=http://HOST:4318, where a collector takes OTLP over HTTP; 4317 is gRPC"),
    ),
    "broker": (
        ("ECONNREFUSED", "start the broker, or WORKER_KAFKA__BOOTSTRAP_SERVERS=HOST:PORT of one that runs"),
        ("secret file", "WORKER_KAFKA__SASL_PLAIN_PASSWORD_FILE or WORKER_KAFKA__SSL_PASSWORD_FILE: a readable file"),
        ("did not answer", "WORKER_KAFKA__SECURITY_PROTOCOL and the port in WORKER_KAFKA__BOOTSTRAP_SERVERS"),
        ("certificate is not valid", "WORKER_KAFKA__BOOTSTRAP_SERVERS with a name that the certificate holds"),
        ("WORKER_KAFKA__", "the setting that is named; review-worker config --changed shows what is in force"),
        ("", "review-worker config --changed shows the address, the user and the files that are in force"),
    ),
    "topics": (("", "make or alter them with the broker's own tools, kafka-topics and kafka-configs"),),
    "rights": (
        ("CoordinatorNotAvailable", COORDINATOR_FIX),
        ("Coordinator", "try again in some seconds: the broker is still coming up"),
        ("", "Read on the input and the group, Write on both outputs and the transactional id"),
    ),
}
"""By what was tried: words of a failure, the most telling first, and the fix; every failure has the empty word."""


def _try(name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, attempt())
    except _UnfitError as unfit:
        return Finding(name, False, str(unfit), unfit.fix)
    except ReviewScorerError as error:
        detail = str(error)
    except Exception as error:
        # What a framework, a driver or the client raises. Nothing of a user's review is here that it could hold.
        said = str(error).strip().partition("\n")[0]
        detail = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return Finding(name, False, detail, next(fix for words, fix in FIXES[name] if words in detail))


def _score_once(artifact: Artifact, settings: Settings) -> str:
    """A real forward pass through tokens, network and verdict."""
    from schemas import Prediction, Review, Source

    engine = open_engine(artifact, settings.engine, settings.precision, settings.cache_dir, rescore=settings.rescore)
    try:
        scorer = Scorer(artifact, engine)
        prepared = scorer.prepare([Review(review_id="check", text=SAMPLE)])
        source = Source(topic="check", partition=0, offset=0)
        (outcome,) = scorer.conclude(prepared, [source], scorer.collect(scorer.submit(prepared)))
    finally:
        engine.close()
    assert isinstance(outcome, Prediction)  # noqa: S101 - a review has a prediction
    it = engine.description
    return f"{it.name} on {it.device} in {it.precision} ({it.reason}); a sample scored {outcome.label}"


def _bind(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = {
                errno.EADDRINUSE: f"WORKER_HTTP__PORT={port + 1 if port < 65_535 else 0}, or end the program that has "
                f"the port; `ss -ltnp sport = :{port}` names it",
                errno.EADDRNOTAVAIL: "WORKER_HTTP__HOST=127.0.0.1, or 0.0.0.0 for every address of this machine",
                errno.EACCES: "WORKER_HTTP__PORT=9108: a port below 1024 is for privileged users",
            }.get(error.errno or 0, "another WORKER_HTTP__HOST or WORKER_HTTP__PORT")
            raise _UnfitError(f"{host}:{port}: {error.strerror}; choose with WORKER_HTTP__PORT", fix) from None
    return f"{host}:{port} is free"


def _trace(settings: Settings) -> str:
    """An export of nothing, as the worker would send its spans."""
    tracing = open_tracing(settings)
    assert tracing is not None  # noqa: S101 - asked for only where the settings name a collector
    with tracing:
        if not tracing.reach():
            raise BrokerError(f"the collector at {settings.tracing.endpoint} takes no spans")
    return f"{settings.tracing.endpoint} takes spans"


# === The broker ===

TIMEOUTS = (
    ("transaction.max.timeout.ms", "transaction_timeout_seconds", "above"),
    ("group.max.session.timeout.ms", "session_timeout_seconds", "above"),
    ("group.min.session.timeout.ms", "session_timeout_seconds", "below"),
)
"""Bounds of the broker, the settings that they hold for, and where a setting may not be."""


def _reach(kafka: KafkaSettings) -> str:
    with admin(kafka) as client:
        brokers = client.describe_cluster()["brokers"]
        limits = broker_limits(client, str(brokers[0]["broker_id"]))
    for bound, name, where in TIMEOUTS:
        seconds, limit = getattr(kafka, name), limits.get(bound)
        if limit is not None and (seconds > limit if where == "above" else seconds < limit):
            setting = f"WORKER_KAFKA__{name.upper()}"
            raise _UnfitError(
                f"{setting} of {seconds:g} is {where} the broker's {bound}, {limit:g} s", f"{setting}={limit:g}"
            )
    return f"{len(brokers)} broker(s) behind {kafka.bootstrap_servers} over {kafka.security_protocol}"


def broker_limits(client: KafkaAdminClient, broker: str) -> dict[str, float]:
    """The broker's bounds in seconds; empty where this client may not DESCRIBE_CONFIGS of the cluster, a right that
    nothing else needs."""
    described = client.describe_configs([ConfigResource(ConfigResourceType.BROKER, broker)], config_filter="all")
    values = described["broker"].get(broker, {})
    return {bound: int(values[bound]["value"]) / 1000 for bound, _, _ in TIMEOUTS if bound in values}


def _topics(kafka: KafkaSettings, create: int | None) -> str:
    with admin(kafka) as client:
        try:
            made = create_missing(client, kafka, create) if create else []
        except BrokerError as error:
            raise _UnfitError(str(error), _grant(kafka, "Create", "--topic", *topic_names(kafka))) from None
        topics = describe(client, topic_names(kafka))
        denied = [topic.name for topic in topics if topic.denied]
        if denied:
            said = "; ".join(forbidden("DESCRIBE", f"topic {name}") for name in denied)
            raise _UnfitError(said, _grant(kafka, "Describe", "--topic", *denied))
        absent = [topic.name for topic in topics if not topic.partitions]
        if absent:
            raise _UnfitError("; ".join(map(missing, absent)), "review-worker check --create-topics --partitions 3")
        room, taken = (max_message_bytes(client, name) for name in (kafka.dead_letter_topic, kafka.input_topic))
    if room is None or taken is None:
        unknown = "; whether every message fits into a dead letter is not known without DESCRIBE_CONFIGS of both topics"
    elif room > taken:
        unknown = ""
    else:
        wanted = DEAD_LETTER_ROOM * taken
        raise _UnfitError(
            f"{kafka.dead_letter_topic} takes records of {room:,} bytes, {kafka.input_topic} of {taken:,}: the largest "
            f"could not become a dead letter; set its max.message.bytes to {wanted}",
            f"{_tool('kafka-configs', kafka)} --alter --entity-type topics --entity-name {kafka.dead_letter_topic} "
            f"--add-config max.message.bytes={wanted}",
        )
    listed = ", ".join(f"{topic.name} ({topic.partitions})" for topic in topics)
    return f"{listed} partitions" + (f"; made {', '.join(made)}" if made else "") + unknown


def _rights(settings: Settings) -> str:
    """Every right that is missing, and not the first alone."""
    kafka = settings.kafka
    needed = dict(zip(topic_names(kafka), ("READ", "WRITE", "WRITE"), strict=True))
    said, fixes = [], []

    def lacks(operation: str, what: str, option: str, name: str) -> None:
        said.append(forbidden(operation, f"{what} {name}"))
        fixes.append(_grant(kafka, operation.capitalize(), option, name))

    with admin(kafka) as client:
        for topic in describe(client, list(needed)):
            if needed[topic.name] not in topic.rights:
                lacks(needed[topic.name], "topic", "--topic", topic.name)
        try:
            rights = group_rights(client, kafka.group_id)
            readable = rights is None or "READ" in rights
        except BrokerError:
            readable = False
        if not readable:
            lacks("READ", "group", "--group", kafka.group_id)
        try:
            transaction_rights(client, settings.transactional_id)
        except BrokerError:
            lacks("WRITE", "transactional id", "--transactional-id", settings.transactional_id)
    if said:
        raise _UnfitError("; ".join(said), "\n".join(fixes))
    return f"read {kafka.input_topic}, write the two others, group {kafka.group_id}, transactions"


def _grant(kafka: KafkaSettings, operation: str, option: str, *names: str) -> str:
    """The command that gives the worker a right."""
    principal = shlex.quote(f"User:{kafka.sasl_plain_username or 'NAME'}")
    on = " ".join(f"{option} {shlex.quote(name)}" for name in names)
    return f"{_tool('kafka-acls', kafka)} --add --allow-principal {principal} --operation {operation} {on}"


def _tool(name: str, kafka: KafkaSettings) -> str:
    return f"{name} --bootstrap-server {kafka.bootstrap_servers.split(',')[0].strip()}"
