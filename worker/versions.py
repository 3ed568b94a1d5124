"""Versions of this release and of the libraries whose versions matter in a bug report."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

DISTRIBUTIONS = (
    "review-scorer",
    "tensorflow",
    "keras",
    "openvino",
    "jax",
    "transformers",
    "tokenizers",
    "numpy",
    "kafka-python",
    "pydantic",
    "pydantic-settings",
    "prometheus-client",
    "typer",
    "opentelemetry-sdk",
)


def versions() -> dict[str, str]:
    """Distribution name to version, Python first; a distribution that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _print_and_leave(asked: bool) -> None:
    if asked:
        for name, number in versions().items():
            print(name, number)
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", callback=_print_and_leave, is_eager=True, help="Print versions and leave.")
]
"""For the callback of a console program."""
