"""Rows packed several to a row, and the packed network against the plain one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.packing import NOT_USED, pack, plan_rows

COLUMNS = 64
SEGMENTS = 4


@given(st.lists(st.integers(2, COLUMNS), max_size=60))
def test_every_row_stands_in_one_packed_row_with_room(lengths: list[int]) -> None:
    plan = plan_rows(lengths, COLUMNS, SEGMENTS)
    assert sorted(index for row in plan for index in row) == list(range(len(lengths)))
    for row in plan:
        assert 1 <= len(row) <= SEGMENTS
        assert sum(lengths[index] for index in row) <= COLUMNS


def test_rows_like_reviews_leave_next_to_nothing_empty() -> None:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(5.4, 0.7, size=2_000), 8, 512).astype(int).tolist()
    plan = plan_rows(lengths, 512, 8)
    assert sum(lengths) / (len(plan) * 512) > 0.97


def test_a_packed_row_says_where_each_segment_lies() -> None:
    rows = [np.arange(5, 5 + length, dtype=np.int32) for length in (30, 10, 20)]
    packed = pack(rows, [[0, 2], [1]], COLUMNS, SEGMENTS, height=3)
    assert packed.lengths.tolist() == [
        [30, 20, NOT_USED, NOT_USED],
        [10, NOT_USED, NOT_USED, NOT_USED],
        [1, NOT_USED, NOT_USED, NOT_USED],
    ]
    assert packed.starts[:, :2].tolist() == [[0, 30], [0, NOT_USED], [0, NOT_USED]]
    assert packed.places.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert packed.ids[0, 30:50].tolist() == rows[2].tolist()
    assert packed.positions[0, 28:33].tolist() == [28, 29, 0, 1, 2]


def test_packed_reviews_have_the_golden_logits(tiny_folder: Path) -> None:
    from keras import ops

    from worker.bert_config import parse_config
    from worker.network import Bert
    from worker.weights import load_weights

    network = Bert(parse_config((tiny_folder / "config.json").read_bytes(), "config.json"))
    load_weights(network, tiny_folder / "model.safetensors")
    examples = json.loads((tiny_folder / "golden.json").read_text())["examples"]
    rows = [np.array(example["input_ids"], dtype=np.int32) for example in examples]
    plan = plan_rows([len(row) for row in rows], COLUMNS, SEGMENTS)
    packed = pack(rows, plan, COLUMNS, SEGMENTS, height=len(plan) + 1)
    segment = np.cumsum(packed.positions == 0, axis=1)
    hidden = (segment[:, :, None] != segment[:, None, :]).astype(np.float32)[:, None] * -10_000

    def attend(q: Any, k: Any, v: Any, scale: float) -> Any:
        q, k, v = (ops.transpose(part, (0, 2, 1, 3)) for part in (q, k, v))
        weights = ops.softmax(ops.matmul(q * scale, ops.transpose(k, (0, 1, 3, 2))) + hidden)
        return ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))

    starts = np.maximum(packed.starts[:, :-1], 0)
    logits = np.asarray(network.packed(packed.ids, packed.positions, starts, attend))
    found = logits[packed.places[:, 0], packed.places[:, 1]]
    assert np.abs(found - [example["logits"] for example in examples]).max() < 1e-4
