"""Every record that crosses a boundary, one a file: frozen, strict and bounded pydantic models without behaviour.

Evolution is additive: readers ignore fields they do not know, and a field once published keeps its meaning.
"""

from schemas.manifest import Cut, FileDigest, Int8, Manifest
from schemas.prediction import ModelName, Prediction, Source
from schemas.rejection import Reason, Rejection
from schemas.review import Review

__all__ = [
    "Cut",
    "FileDigest",
    "Int8",
    "Manifest",
    "ModelName",
    "Prediction",
    "Reason",
    "Rejection",
    "Review",
    "Source",
]
