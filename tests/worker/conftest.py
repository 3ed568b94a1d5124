"""What the tests of settings share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests are not the tests' own."""
    for name in list(os.environ):
        if name.upper().startswith(("WORKER_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a TOML file and gives its path."""

    def write(content: str) -> Path:
        path = tmp_path / "worker.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return write
