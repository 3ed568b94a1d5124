"""Service: `review-worker run`, put together from its parts and taken apart again in the right order.

What can be wrong without Kafka is found before the group is joined: a bad model leaves the group untouched. The broker
is asked for first all the same, since loading a model takes longer than finding out that there is no broker.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from worker.artifact import Artifact, open_artifact
from worker.engine import open_engine
from worker.errors import ReviewScorerError, SettingsError
from worker.health import HealthServer
from worker.letters import Letters
from worker.logs import start_logging
from worker.loop import Loop
from worker.metrics import Metrics
from worker.models import Models
from worker.outbox import Outbox
from worker.pace import Pace
from worker.scorer import Scorer
from worker.settings import Settings
from worker.shadow import Shadow
from worker.source import ReviewSource
from worker.topics import require_topics
from worker.watchdog import Watchdog

log = logging.getLogger(__name__)


def open_model(settings: Settings) -> Artifact:
    """The verified artefact that the settings name.

    Raises:
        SettingsError: they name none.
        ArtifactError: it cannot be used.
    """
    # An empty variable, as compose files make them, is the path of no folder in particular.
    if settings.model is None or settings.model == Path():
        raise SettingsError("no model: set WORKER_MODEL or --model to an artefact folder or its parent")
    return open_artifact(settings.model)


def load_scorer(artifact: Artifact, settings: Settings) -> Scorer:
    """A verified artefact, warm and ready to score.

    Raises:
        ArtifactError: a file that matches its hash cannot be used all the same.
        EngineError: the engine that the settings name cannot run here.
    """
    engine = open_engine(artifact, settings.engine, settings.precision)
    try:
        engine.warm_up()
        return Scorer(artifact, engine)
    except BaseException:
        engine.close()
        raise


class State:
    """What the probes ask: whether it is so, and one line that says why."""

    def __init__(self) -> None:
        self.watchdog: Watchdog | None = None
        self.source: ReviewSource | None = None

    def live(self) -> tuple[bool, str]:
        """The process makes progress. A broker that is away is no reason for a restart."""
        if self.watchdog is None:
            return True, "starting"
        return self.watchdog.alive, f"in {self.watchdog.stage} for {self.watchdog.age_seconds:.1f} s"

    def ready(self) -> tuple[bool, str]:
        """The model is warm and the worker is a member of its group."""
        if self.source is None:
            return False, "loading the model"
        return (True, "ready") if self.source.joined else (False, "joining the group")


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; the batch in hand is then committed.

    Raises:
        ReviewScorerError: with the line for the user.
    """
    start_logging(settings.log_level)
    try:
        _serve(settings)
    except ReviewScorerError:
        raise
    except Exception:
        # A defect or a broken machine. The exception's own text may hold a part of a review: where it was raised is
        # what helps.
        log.critical("unexpected error; ending the process", exc_info=True)
        sys.exit(1)


def _serve(settings: Settings) -> None:
    artifact = open_model(settings)
    manifest = artifact.manifest
    metrics = Metrics()
    state = State()
    metrics.ready.set_function(lambda: float(state.ready()[0]))
    with ExitStack() as stack:
        stopping = stack.enter_context(_stop_signals())
        http = stack.enter_context(
            HealthServer(settings.http.host, settings.http.port, metrics, state.live, state.ready)
        )
        log.info("starting", extra={"http": http.url, "model": manifest.name, "version": manifest.version})
        # From here on, since connecting can hang as well: kafka-python waits for ever on a silent TLS peer.
        watchdog = state.watchdog = stack.enter_context(Watchdog(settings.watchdog.stage_seconds))
        watchdog.enter("find topics")
        require_topics(settings.kafka)
        watchdog.enter("load model", settings.watchdog.load_seconds)
        scorer = load_scorer(artifact, settings)
        # The folder of one version has no newer ones.
        parent = settings.model if artifact.folder != settings.model else None
        models = stack.enter_context(
            Models(scorer, parent, lambda newer: load_scorer(newer, settings), settings.reload.seconds, metrics)
        )
        stack.enter_context(_hang_ups(models.ask, stopping))
        log.info("model ready", extra={"engine": vars(scorer.engine.description)})
        shadow = _open_shadow(settings, artifact, metrics)
        if shadow:
            stack.callback(shadow.close)
        watchdog.enter("connect")
        outbox = Outbox(settings)
        stack.callback(outbox.close)
        source = state.source = ReviewSource(settings, metrics)
        stack.callback(source.close)
        loop = Loop(
            source=source,
            models=models,
            letters=Letters(settings.kafka.output_topic, settings.kafka.dead_letter_topic),
            outbox=outbox,
            pace=Pace(settings.batch, manifest.cut.head + manifest.cut.tail),
            metrics=metrics,
            watchdog=watchdog,
            shadow=shadow,
            limits=settings.limits,
            max_message_bytes=settings.batch.max_message_bytes,
            stopping=stopping,
        )
        loop.run()
        watchdog.enter("close")
    log.info("stopped")


def _open_shadow(settings: Settings, artifact: Artifact, metrics: Metrics) -> Shadow | None:
    """The second model, if the settings name one.

    Raises:
        SettingsError: it has other labels.
        ArtifactError: it cannot be used.
    """
    if settings.shadow.model is None:
        return None
    second = open_artifact(settings.shadow.model)
    if second.manifest.labels != artifact.manifest.labels:
        raise SettingsError(
            f"shadow.model {second.folder}: its labels are {', '.join(second.manifest.labels)}, those of the model "
            f"{', '.join(artifact.manifest.labels)}; only models with the same labels can be compared"
        )
    log.info("shadow model", extra={"model": second.manifest.name, "version": second.manifest.version})
    return Shadow(load_scorer(second, settings), settings.shadow.share, metrics)


@contextmanager
def _hang_ups(reload: Callable[[], None], stopping: threading.Event) -> Iterator[None]:
    """SIGHUP looks for a newer model, as daemons have it; when it means that the terminal was closed, it stops."""
    had_terminal = os.isatty(sys.stderr.fileno())

    def hang_up(_: int, __: FrameType | None) -> None:
        if had_terminal and not os.isatty(sys.stderr.fileno()):
            stopping.set()
        else:
            reload()

    before = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stopping = threading.Event()

    def stop(number: int, _: FrameType | None) -> None:
        stopping.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
