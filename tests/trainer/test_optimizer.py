"""The optimizer against the arithmetic it should do."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizer import WarmupLinear, averaged, make_optimizer, rate_factor
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


def test_the_rate_of_accumulated_batches_is_that_of_their_update() -> None:
    rate, slow = WarmupLinear(1.0, 10, 4), WarmupLinear(1.0, 10, 4, every=3)
    assert [float(slow(batch)) for batch in range(30)] == [float(rate(batch // 3)) for batch in range(30)]


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
    assert any(isinstance(gradient, tf.IndexedSlices) for gradient in found), (
        "the trap is gone: so may be part of `Update`"
    )
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


@pytest.mark.parametrize(
    ("path", "factor"),
    [
        ("bert/classifier/kernel", 1.0),
        ("bert/pooler/bias", 1.0),
        ("bert/layer_5/outer_norm/gamma", 0.8),
        ("bert/layer_4/attention/qkv/kernel", 0.8**2),
        ("bert/layer_0/inner/bias", 0.8**6),
        ("bert/words/embeddings", 0.8**7),
        ("bert/norm/beta", 0.8**7),
    ],
)
def test_the_rate_falls_from_layer_to_layer(path: str, factor: float) -> None:
    assert rate_factor(path, 6, 0.8) == pytest.approx(factor)
    assert rate_factor(path, 6, 1.0) == 1.0


def stepped(settings: TrainSettings, batches: list[list[Any]], steps: int = 1000) -> dict[str, Any]:
    """What is left of weights of one after some steps with these gradients, less one."""
    network = Bert(CONFIG)
    optimizer = make_optimizer(settings, 1e-2, steps, CONFIG.num_hidden_layers)
    network.compile(optimizer=optimizer)
    optimizer.build(network.trainable_variables)
    for variable in network.trainable_variables:
        variable.assign(np.ones(variable.shape))
    for gradient in batches:
        optimizer.apply(gradient, network.trainable_variables)
    return {variable.path.partition("/")[2]: variable.numpy() - 1 for variable in network.trainable_variables}


def test_every_variable_moves_and_decays_by_its_own_rate() -> None:
    own = [tf.ones(variable.shape) for variable in Bert(CONFIG).trainable_variables]
    plain = {"base": "b", "warmup": 0.0, "clip_norm": 0.0, "weight_decay": 0.1}
    even = stepped(TrainSettings(**plain), [own])
    falling = stepped(TrainSettings(**plain, layer_decay=0.5), [own])
    for name, moved in even.items():
        part = name.partition("/")[0]
        factor = {"classifier": 1.0, "pooler": 1.0, "layer_0": 0.5}.get(part, 0.25)
        np.testing.assert_allclose(falling[name], moved * factor, rtol=2e-3, atol=1e-7, err_msg=name)
        assert (moved < 0).all()


def test_accumulated_batches_make_the_update_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    shapes = [tuple(variable.shape) for variable in Bert(CONFIG).trainable_variables]
    parts = [[tf.constant(rng.normal(size=shape), dtype="float32") for shape in shapes] for _ in range(4)]
    means = [[(a + b) / 2 for a, b in zip(parts[at], parts[at + 1], strict=True)] for at in (0, 2)]
    plain = {"base": "b", "warmup": 0.5, "clip_norm": 1.0}
    together = stepped(TrainSettings(**plain), means, steps=8)
    one_by_one = stepped(TrainSettings(**plain, accumulate=2), parts, steps=16)
    for name, moved in together.items():
        np.testing.assert_allclose(one_by_one[name], moved, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_average_looks_back_over_updates_and_leaves_the_weights_alone(accumulate: int) -> None:
    network = Bert(CONFIG)
    settings = TrainSettings(base="b", average=0.75, accumulate=accumulate, optimizer="adam", clip_norm=0)
    network.compile(optimizer=make_optimizer(settings, 0.1, 100))
    network.optimizer.build(network.trainable_variables)
    weight = network.classifier.bias
    wanted = None
    for update in range(4):
        gradient = [tf.fill(variable.shape, float(update + 1)) for variable in network.trainable_variables]
        for _ in range(accumulate):
            network.optimizer.apply(gradient, network.trainable_variables)
        now = np.array(weight.numpy())
        wanted = now if wanted is None else 0.75 * wanted + 0.25 * now
    before = [np.array(variable.numpy()) for variable in network.trainable_variables]
    with averaged(network):
        np.testing.assert_allclose(weight.numpy(), wanted, rtol=1e-5)
        assert (weight.numpy() != before[-1]).all()
    for variable, value in zip(network.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
