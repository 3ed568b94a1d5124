"""The optimizer against the arithmetic it should do."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizer import WarmupLinear, make_optimizer
from trainer.settings import Optimizer, TrainSettings
from worker.bert_config import BertConfig
from worker.network import Bert

CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=12,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.5,
)


def test_the_rate_rises_in_a_line_then_falls_to_nothing() -> None:
    rate = WarmupLinear(1.0, steps=10, warmup_steps=4)
    found = [float(rate(step)) for step in range(12)]
    np.testing.assert_allclose(found[:4], [0.25, 0.5, 0.75, 1.0], atol=1e-6)
    assert found[4] == 1.0
    assert all(later < earlier for earlier, later in pairwise(found[4:11]))
    assert found[9] > 0
    assert found[10] == pytest.approx(0, abs=1e-6)
    assert found[11] == 0


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert float(WarmupLinear(2.0, steps=10, warmup_steps=0)(0)) == pytest.approx(2.0)


def gradients(network: Bert) -> list[Any]:
    ids = np.array([[2, 5, 7, 5, 3], [2, 5, 9, 5, 3]], dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(np.array([0, 1]), network(inputs, training=True))
    return list(tape.gradient(value, network.trainable_weights))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_tokens_that_repeat_are_summed_before_they_are_squared(name: Optimizer) -> None:
    """Keras squares the repeated rows of an embedding's gradient one by one: clipping and scaling go wrong."""
    network = Bert(CONFIG)
    found = gradients(network)
    assert any(isinstance(gradient, tf.IndexedSlices) for gradient in found), "the trap is gone: so may be `Dense`"
    dense = [np.asarray(tf.convert_to_tensor(gradient), dtype=np.float64) for gradient in found]
    settings = TrainSettings(base="b", optimizer=name, clip_norm=0.1, weight_decay=0.0, warmup=0.0)
    optimizer = make_optimizer(settings, 1e-2, steps=1000)
    optimizer.build(network.trainable_variables)
    before = [np.array(variable.numpy(), dtype=np.float64) for variable in network.trainable_variables]
    optimizer.apply(found, network.trainable_variables)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in dense))
    assert norm > 0.2, "nothing would be clipped"
    for variable, old, gradient in zip(network.trainable_variables, before, dense, strict=True):
        clipped = gradient * 0.1 / norm
        # Adam's first step, with Keras' epsilon inside the bias-corrected scale.
        step = 1e-2 * np.sqrt(1 - 0.999) / (1 - 0.9) * (0.1 * clipped) / (np.sqrt(0.001 * clipped**2) + 1e-7)
        np.testing.assert_allclose(variable.numpy(), old - step, atol=2e-6, err_msg=variable.path)


def test_decay_spares_biases_and_normalisations() -> None:
    network = Bert(CONFIG)
    optimizer = make_optimizer(TrainSettings(base="b", weight_decay=0.5, warmup=0.0), 0.1, steps=10)
    optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.apply([tf.zeros(variable.shape) for variable in network.trainable_variables], network.trainable_variables)
    for variable in network.trainable_variables:
        spared = variable.name in ("bias", "gamma", "beta")
        wanted = 1.0 if spared else 1 - 0.5 * 0.1
        np.testing.assert_allclose(variable.numpy(), wanted, rtol=1e-5, err_msg=variable.path)


def test_the_notebooks_adam_keeps_its_rate() -> None:
    optimizer = make_optimizer(TrainSettings(base="b", optimizer="adam"), 3e-5, steps=10)
    assert float(optimizer.learning_rate) == pytest.approx(3e-5)
    assert optimizer.weight_decay is None
