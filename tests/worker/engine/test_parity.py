"""Bfloat16 and float32 on real reviews; `tests/bench/parity.py` is the same with a thousand."""

from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="the optional engine `openvino` is not installed")

from bench.parity import (
    LARGEST_DIFFERENCE,
    MEAN_DIFFERENCE,
    SAME_LABEL,
    compare,
    read_reviews,
    reference_artifact,
)
from worker.engine.keras_engine import has_fast_bfloat16


@pytest.mark.usefixtures("shared")
def test_bfloat16_keeps_labels_and_probabilities(tmp_path: Path) -> None:
    texts, positive = read_reviews(16)
    found = dict(compare(reference_artifact(tmp_path), ["bfloat16"], texts, positive))
    parity = found["bfloat16"]
    assert parity.same >= SAME_LABEL
    # A CPU without bfloat16 computes the same in float32.
    assert parity.mean <= MEAN_DIFFERENCE
    assert (parity.mean > 0) == has_fast_bfloat16()
    assert parity.largest <= LARGEST_DIFFERENCE
    assert found["float32"].accuracy >= 0.75
