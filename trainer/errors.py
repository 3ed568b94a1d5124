"""What can go wrong in training beyond `worker.errors`; each is one line for the user.

ReviewScorerError
├── DataError       prepared data that is missing, incomplete or altered: exit 1
└── TrainingError   the run itself failed, as with a loss that is not a number: exit 1
"""

from worker.errors import ReviewScorerError


class DataError(ReviewScorerError):
    """A folder of prepared data is missing, incomplete, or does not agree with its own `info.json`."""


class TrainingError(ReviewScorerError):
    """Training cannot go on."""
