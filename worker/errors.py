"""What can go wrong, by consequence.

    ReviewScorerError        one line for the user, no stack trace; the process ends
    ├── UsageError           the command or its input is wrong: exit 2
    │   └── SettingsError    a setting is unknown, missing or out of range
    ├── ArtifactError        a model folder or checkpoint that cannot be used: exit 1
    ├── EngineError          the engine asked for cannot run here, or no longer scores: exit 1
    ├── BrokerError          no broker, no topic, no right: exit 1
    └── LimitError           too many dead letters to be accidents: exit 1, the batch is not committed
    Rewind                   what is in hand is void: read the committed offsets and go on from there

A record at fault is no exception: it is a `schemas.Rejection`. Everything else that is raised is a defect or a broken
machine; it ends the process, and the restarted one begins at the last committed offset.
"""

from typing import Literal


class ReviewScorerError(Exception):
    """Its text says what, where, and what to do."""

    exit_code = 1


class UsageError(ReviewScorerError):
    """The command, an argument or an input file is not what was asked for."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, missing or out of range."""


class ArtifactError(ReviewScorerError):
    """A model folder or checkpoint is missing, incomplete, altered, or not of a kind that can be used."""


class EngineError(ReviewScorerError):
    """The engine that was asked for cannot run on this machine, or no longer scores anything."""


class BrokerError(ReviewScorerError):
    """The broker cannot be reached, or refuses what the worker needs."""


class LimitError(ReviewScorerError):
    """More dead letters than single records at fault would make."""


class Rewind(Exception):  # noqa: N818 - an outcome, not an error of ours
    """What is in hand is void: nothing of it is committed, or, where that was unknown, it is settled now. The loop goes
    back to the committed offsets and on from there.

    Attributes:
        outcome: of the transaction that failed; None when there was none.
    """

    def __init__(self, cause: str, outcome: Literal["aborted", "unknown"] | None = None) -> None:
        super().__init__(cause)
        self.outcome = outcome
