"""Versions of this release and of the libraries whose versions matter in a bug report."""

import platform
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTIONS = ("review-scorer", "tensorflow", "keras", "transformers", "tokenizers", "kafka-python", "pydantic")


def versions() -> dict[str, str]:
    """Distribution name to version, Python first; a distribution that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
