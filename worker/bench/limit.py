"""Limit: how many operations a review needs, and how many of the network's own matrix products this machine does.

What a network does at most is what its matrix products alone do: the share of that limit which an engine reaches says
how much could be gained at all, on any machine.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from worker.bench.rounds import Spread, spread
from worker.bert_config import BertConfig
from worker.engine import EngineDescription

Call = Callable[[], object]

ROWS = {"openvino": 512, "tensorflow": 2048, "jax": 2048}
"""Tokens of one call, about as the engines make theirs."""

GPU_ROWS = 65_536
SECONDS = 0.5
"""Of one round."""

OPENVINO_HINTS = {"bfloat16": "bf16", "float32": "f32", "int8": "f32"}


def review_flop(config: BertConfig, length: int) -> float:
    """Operations (a multiplication and an addition are two) of the matrix products for one review.

    Args:
        config: the network's shape.
        length: its tokens.

    In every layer but the last, for each token: query, key, value and output (4 H x H), the feed-forward part
    (H x I, I x H), and the products of the attention with all tokens. In the last layer, keys and values for each
    token, and everything else for [CLS] alone.
    """
    width, inner = config.hidden_size, config.intermediate_size
    square, fed = width * width, 2 * width * inner
    each = length * (4 * square + fed + 2 * length * width)
    last = length * 2 * square + 2 * square + fed + 2 * length * width
    head = square + width * len(config.labels)
    return 2.0 * ((config.num_hidden_layers - 1) * each + last + head)


def measure_limit(description: EngineDescription, config: BertConfig, rounds: int) -> Spread | None:
    """Operations a second of plain matrix products in the engine's precision, of the network's shapes, one behind the
    other as in the network; None for an engine that is not known here."""
    rows = (
        GPU_ROWS
        if description.name == "jax" and "cpu" not in description.device.lower()
        else ROWS.get(description.name, 0)
    )
    if not rows:
        return None
    width, inner = config.hidden_size, config.intermediate_size
    shapes = ([(width, width)] * 4 + [(width, inner), (inner, width)]) * config.num_hidden_layers
    rng = np.random.default_rng(0)
    # Of a size that keeps the numbers as they are, from the first product to the last.
    weights = [(rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32) for shape in shapes]
    x = rng.standard_normal((rows, width)).astype(np.float32)
    flop = 2.0 * rows * sum(a * b for a, b in shapes)
    make = _openvino if description.name == "openvino" else _keras
    call, calls = make(x, weights, description.precision)
    call()
    return spread(calls * flop * _per_second(call) for _ in range(rounds))


def _per_second(call: Call) -> float:
    begun = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - begun) < SECONDS:
        call()
        done += 1
    return done / elapsed


def _openvino(x: np.ndarray, weights: Sequence[np.ndarray], precision: str) -> tuple[Call, int]:
    """As many calls at once as there are streams, as the engine makes them; int8 is what 8-bit fake quantization of
    both factors becomes."""
    import openvino
    from openvino import opset13 as ops

    def eighth(node: object, most: float, levels: int) -> object:
        ends = [np.float32(-most), np.float32(most)] * 2
        return ops.fake_quantize(node, *(ops.constant(end) for end in ends), levels)

    source = node = ops.parameter(x.shape, np.float32)
    for weight in weights:
        factor = ops.constant(weight)
        if precision == "int8":
            node, factor = eighth(node, 4.0, 256), eighth(factor, float(np.abs(weight).max()), 255)
        node = ops.matmul(node, factor, False, False)
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": OPENVINO_HINTS[precision]}
    compiled = openvino.Core().compile_model(openvino.Model([node], [source]), "CPU", options)
    queue = openvino.AsyncInferQueue(compiled)
    calls = 2 * len(queue)

    def call() -> None:
        for _ in range(calls):
            queue.start_async([x])
        queue.wait_all()

    return call, calls


def _keras(x: np.ndarray, weights: Sequence[np.ndarray], precision: str) -> tuple[Call, int]:
    """On the backend that the engine has chosen."""
    import keras
    from keras import ops

    factors = [ops.cast(weight, precision) for weight in weights]
    first = ops.cast(x, precision)

    def chain(given: object) -> object:
        for factor in factors:
            given = ops.matmul(given, factor)
        return given

    if keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(chain)
        return lambda: jax.block_until_ready(compiled(first)), 1
    import tensorflow as tf

    traced = tf.function(chain)
    return lambda: traced(first)[0, 0].numpy(), 1
