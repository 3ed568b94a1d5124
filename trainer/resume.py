"""What an earlier call of `train` or `adapt` left in a run folder, and whether this one may go on from there."""

from dataclasses import dataclass
from pathlib import Path

from trainer.adapt_settings import AdaptSettings
from trainer.errors import DataError
from trainer.folders import refuse_existing
from trainer.run import HISTORY, History, read_history
from trainer.settings import TrainSettings
from trainer.snapshot import CHECKPOINT, State, Tensors, read_snapshot
from trainer.work import Work
from worker.artifact import WEIGHTS
from worker.errors import UsageError


@dataclass(frozen=True)
class Earlier:
    """A run that stands somewhere.

    Attributes:
        history: so far.
        state: where it stands; None where it is finished.
        tensors: that belong to the state.
    """

    history: History
    state: State | None = None
    tensors: Tensors | None = None


def earlier_run(out: Path, job: Work) -> Earlier | None:
    """What is there to go on from; None where the run must begin, since it was ended before its first checkpoint.

    Raises:
        UsageError: the run was begun with other settings, data or weights, or the folder is no run; says which.
        DataError: it has results but no checkpoint, as when somebody removed it.
        ArtifactError: the checkpoint is damaged.
    """
    if not (out / job.marker).is_file():
        refuse_existing(out, marker=job.marker, force=False)
        return None
    checkpoint = out / CHECKPOINT
    state, tensors = read_snapshot(checkpoint) if checkpoint.is_file() else (None, None)
    _refuse_other(out, job, *job.begun(out), state)
    history = read_history(out) if (out / HISTORY).is_file() else None
    if history is not None and history.finished(job.settings) and (out / WEIGHTS).is_file():
        checkpoint.unlink(missing_ok=True)
        return Earlier(history)
    if state is not None:
        return Earlier(state.history, state, tensors)
    if history is not None:
        raise DataError(f"{out}: has no {CHECKPOINT} to go on from; --force starts anew")
    return None


def _refuse_other(
    out: Path, job: Work, settings: TrainSettings | AdaptSettings, data_digest: str, state: State | None
) -> None:
    here, there = job.settings.model_dump(), settings.model_dump()
    faults = [
        f"--{name.replace('_', '-')} is {here[name]} here and {there[name]} there"
        for name in here
        if here[name] != there[name]
    ]
    if job.data_digest != data_digest:
        faults.append("the data is not that which it was begun on")
    if state is not None and job.checkpoint.digest != state.base_digest:
        faults.append(f"the base checkpoint {job.checkpoint.folder} is not that which it was begun from")
    if faults:
        raise UsageError(f"{out}: cannot go on: {'; '.join(faults)}")
