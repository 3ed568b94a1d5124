"""Service: `review-worker run`, put together from its parts and taken apart again in the right order.

What can be wrong without Kafka is found before the group is joined: a bad model leaves the group untouched. The broker
is asked for first all the same, since loading a model takes longer than finding out that there is no broker.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from worker.artifact import Artifact, open_artifact
from worker.engine import open_engine
from worker.errors import SettingsError
from worker.health import HealthServer
from worker.letters import Letters
from worker.logs import start_logging
from worker.loop import Loop
from worker.metrics import Metrics
from worker.outbox import Outbox
from worker.pace import Pace
from worker.scorer import Scorer
from worker.settings import Settings
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
    if settings.model is None:
        raise SettingsError("no model: set WORKER_MODEL or --model to an artefact folder or its parent")
    return open_artifact(settings.model)


class State:
    """What the probes ask. `live` and `ready` give whether it is so, and one line that says why."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.watchdog: Watchdog | None = None
        self.source: ReviewSource | None = None

    def live(self) -> tuple[bool, str]:
        """The loop makes progress, or has not begun."""
        if self.watchdog is None:
            return True, "starting"
        stage, age = self.watchdog.stage, self.watchdog.age_seconds
        return self.watchdog.alive, f"in {stage} for {age:.1f} s"

    def ready(self) -> tuple[bool, str]:
        """The model is warm and the worker is a member of its group."""
        if self.source is None:
            well, why = False, "loading the model"
        elif not self.source.joined:
            well, why = False, "joining the group"
        else:
            well, why = True, "ready"
        self._metrics.ready.set(well)
        return well, why


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; the batch in hand is then committed.

    Raises:
        ReviewScorerError: with the line for the user.
    """
    start_logging(settings.log_level)
    artifact = open_model(settings)
    metrics = Metrics()
    state = State(metrics)
    with ExitStack() as stack:
        stopping = stack.enter_context(_stop_signals())
        http = stack.enter_context(
            HealthServer(settings.http.host, settings.http.port, metrics, state.live, state.ready)
        )
        log.info("starting", extra={"http": http.url, "model": artifact.manifest.name, "folder": str(artifact.folder)})
        require_topics(settings.kafka)
        engine = open_engine(artifact, settings.engine, settings.precision)
        stack.callback(engine.close)
        engine.warm_up()
        metrics.show_model(artifact.name, engine.description, artifact.manifest.labels)
        log.info("model ready", extra={"version": artifact.manifest.version, **vars(engine.description)})
        watchdog = stack.enter_context(Watchdog(settings.watchdog.stage_seconds))
        outbox = Outbox(settings)
        stack.callback(outbox.close)
        source = ReviewSource(settings, metrics)
        stack.callback(source.close)
        state.watchdog, state.source = watchdog, source
        cut = artifact.manifest.cut
        loop = Loop(
            source=source,
            scorer=Scorer.open(artifact, engine),
            letters=Letters(settings.kafka.output_topic, settings.kafka.dead_letter_topic),
            outbox=outbox,
            pace=Pace(settings.batch.max_reviews, settings.batch.token_budget, cut.head + cut.tail),
            metrics=metrics,
            watchdog=watchdog,
            stopping=stopping,
            max_message_bytes=settings.batch.max_message_bytes,
        )
        loop.run()
        watchdog.enter("close")
    log.info("stopped")


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
