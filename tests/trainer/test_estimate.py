"""The estimate of the time."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from trainer.dataset import Buckets, Examples, batches, training_plan
from trainer.estimate import Pace, Speed, measure
from trainer.job import Job
from trainer.optimizer import make_optimizer
from trainer.settings import TrainSettings

SPEED = Speed(widths=[10, 20, 40], seconds=[1.0, 2.0, 8.0], batch=4, forward_share=0.25)


@pytest.mark.parametrize(
    ("rows", "width", "seconds"), [(4, 10, 1.0), (4, 15, 1.5), (2, 20, 1.0), (4, 30, 5.0), (4, 60, 12.0), (4, 5, 1.0)]
)
def test_steps_between_measured_widths_are_interpolated(rows: int, width: int, seconds: float) -> None:
    assert SPEED.step(rows, width) == pytest.approx(seconds)


def test_a_plan_costs_the_sum_of_its_steps_and_validation_a_share() -> None:
    lengths, plan, buckets = np.array([10, 10, 20, 20]), [np.array([0, 1]), np.array([2, 3])], Buckets((10, 20))
    assert SPEED.training(plan, lengths, buckets) == [0.5, 1.0]
    assert SPEED.validation(plan, lengths, buckets) == pytest.approx(0.375)


def test_measuring_leaves_the_network_as_it_was() -> None:
    import keras

    from worker.bert_config import BertConfig
    from worker.network import Bert

    keras.utils.set_random_seed(0)
    network = Bert(
        BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12)
    )
    network.compile(
        optimizer=make_optimizer(TrainSettings(base="b"), 1e-2, 10),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.optimizer.build(network.trainable_variables)
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, 40)
    ids = rng.integers(0, 20, lengths.sum()).astype(np.int32)
    examples = Examples(ids, lengths, (np.arange(40) % 2).astype(np.int32), 0)
    variables = [*network.variables, *network.optimizer.variables]
    before = [np.array(variable.numpy()) for variable in variables]
    assert any("seed" in variable.path for variable in variables), "dropout's state must be among them"
    plan = training_plan(examples.lengths, 8, 0, 0)
    buckets = Buckets((10, 20, 30))
    speed = measure(network, lambda plan: iter(batches(examples, plan, buckets)), lengths, plan, buckets)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
    assert speed.batch == 8
    assert list(speed.widths) == sorted(speed.widths)
    assert all(seconds > 0 for seconds in speed.seconds)
    assert 0 < speed.forward_share < 2


def test_the_pace_ends_where_the_estimate_ends() -> None:
    lengths, plan = np.array([10, 10, 20, 20]), [np.array([0, 1]), np.array([2, 3])]
    job = SimpleNamespace(
        plans=[plan, plan[::-1]],
        lengths=[np.array([10, 10, 10, 10]), lengths],
        validation=SimpleNamespace(lengths=lengths),
        validation_plan=plan,
        buckets=Buckets((10, 20)),
    )
    pace = Pace(cast(Job, job), SPEED)
    assert pace.total == pytest.approx(1.0 + 1.5 + 2 * 0.375), "the first epoch reads ten tokens only"
    assert pace.done(0, 0) == 0
    assert pace.done(0, 1) == pytest.approx(0.5)
    assert pace.done(1, 0) == pytest.approx(1.0 + 0.375)
    assert pace.done(1, 1) == pytest.approx(1.0 + 0.375 + 1.0)
    assert pace.done(1, 2) + pace.validation == pytest.approx(pace.total)
