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
from typing import TYPE_CHECKING

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
from worker.page import Condition, Page, Samples
from worker.scorer import Scorer
from worker.settings import Settings
from worker.shadow import Shadow
from worker.source import ReviewSource
from worker.topics import require_topics
from worker.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.tracing import Tracing

log = logging.getLogger(__name__)

STUCK_SECONDS = 30.0
"""A stage that takes so long is shown to people, before the watchdog's limit ends the process."""


SWITCH_SECONDS = 0.001
"""How long a thread may hold Python while others wait for their turn; 5 ms by default. A commit is six answers of the
broker, one after the other, and each is met by two threads: beside a batch that is being prepared, all of them wait."""


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


def load_scorer(artifact: Artifact, settings: Settings, cached_reviews: int = 0) -> Scorer:
    """A verified artefact, warm and ready to score, as `Scorer` is told.

    Raises:
        ArtifactError: a file that matches its hash cannot be used all the same.
        EngineError: the engine that the settings name cannot run here.
    """
    engine = open_engine(artifact, settings.engine, settings.precision, settings.cache_dir, rescore=settings.rescore)
    try:
        engine.warm_up()
        return Scorer(artifact, engine, cached_reviews)
    except BaseException:
        engine.close()
        raise


class State:
    """What the probes ask: whether it is so, and one line that says why; and what the page does."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
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

    def condition(self) -> Condition:
        """What the worker is doing, apart from whether there is traffic."""
        if self.watchdog is None:
            return Condition("starting", "")
        stage, age = self.watchdog.stage, self.watchdog.age_seconds
        if age > STUCK_SECONDS and stage != "load model":
            return Condition("stuck", f"in the stage {stage} for {age:.0f} s")
        if self.stopping.is_set():
            return Condition("stopping", "committing the batch in hand, and leaving the group")
        if self.source is None:
            loading = stage == "load model"
            return Condition("loading" if loading else "starting", f"in the stage {stage} for {age:.0f} s")
        return Condition("ready", "scoring") if self.source.joined else Condition("joining", "waiting for the group")


Load = Callable[[Artifact, Settings, int], Scorer]


def run(settings: Settings, load: Load = load_scorer) -> None:
    """Serve until SIGTERM or SIGINT; the batch in hand is then committed.

    Args:
        settings: all of them.
        load: makes a verified artefact ready to score; a measurement has one of its own.

    Raises:
        ReviewScorerError: with the line for the user.
    """
    start_logging(settings.log_level)
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        _serve(settings, load)
    except ReviewScorerError:
        raise
    except Exception:
        # A defect or a broken machine. The exception's own text may hold a part of a review: where it was raised is
        # what helps.
        log.critical("unexpected error; ending the process", exc_info=True)
        sys.exit(1)


def _serve(settings: Settings, load: Load) -> None:
    tracing = open_tracing(settings)
    artifact = open_model(settings)
    manifest = artifact.manifest
    metrics = Metrics()
    state = State()
    metrics.ready.set_function(lambda: float(state.ready()[0]))
    with ExitStack() as stack:
        if tracing:
            # First in, last out: the group is left before the last spans are sent.
            stack.enter_context(tracing)
        stopping = state.stopping = stack.enter_context(_stop_signals())
        samples = Samples(settings.page.samples) if settings.page.samples else None
        page = stack.enter_context(Page(metrics, state.condition, settings, samples))
        http = stack.enter_context(
            HealthServer(settings.http.host, settings.http.port, metrics, state.live, state.ready, page)
        )
        told = {"http": http.url, "page": f"{http.url}/", "model": manifest.name, "version": manifest.version}
        log.info("starting", extra=told)
        if samples:
            log.warning("the page shows the beginning of reviews to whoever reaches it; WORKER_PAGE__SAMPLES is set")
        # From here on, since connecting can hang as well: kafka-python waits for ever on a silent TLS peer.
        watchdog = state.watchdog = stack.enter_context(Watchdog(settings.watchdog.stage_seconds))
        watchdog.enter("find topics")
        require_topics(settings.kafka)
        watchdog.enter("load model", settings.watchdog.load_seconds)
        cached = settings.cache.reviews
        scorer = load(artifact, settings, cached)
        # The folder of one version has no newer ones.
        parent = settings.model if artifact.folder != settings.model else None
        models = stack.enter_context(
            Models(scorer, parent, lambda newer: load(newer, settings, cached), settings.reload.seconds, metrics)
        )
        stack.enter_context(_hang_ups(models.ask, stopping))
        log.info("model ready", extra={"engine": vars(scorer.engine.description)})
        shadow = _open_shadow(settings, artifact, metrics, page)
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
            tracing=tracing,
            limits=settings.limits,
            max_message_bytes=settings.batch.max_message_bytes,
            stopping=stopping,
            samples=samples,
        )
        loop.run()
        watchdog.enter("close")
    log.info("stopped")


def _open_shadow(settings: Settings, artifact: Artifact, metrics: Metrics, page: Page) -> Shadow | None:
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
    scorer = load_scorer(second, settings)
    page.shadow = second.name
    return Shadow(scorer, settings.shadow.share, metrics)


def open_tracing(settings: Settings) -> "Tracing | None":
    """What traces the batches, if the settings name a collector. Nothing of OpenTelemetry is imported otherwise.

    Raises:
        SettingsError: OpenTelemetry is not installed, or cannot use one of its own variables.
    """
    if settings.tracing.endpoint is None:
        return None
    try:
        from worker.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"tracing.endpoint is set, but {error.name} is not installed; pip install 'review-scorer[tracing]', or "
            "unset WORKER_TRACING__ENDPOINT"
        ) from None
    return Tracing(settings)


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
