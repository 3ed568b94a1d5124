"""Two devices: the same training as one, each with half of every batch."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toy import Program, edit_json
from trainer.replicas import refuse_small, refuse_unshared
from trainer.settings import Precision, settings_from
from worker.errors import SettingsError, UsageError

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from pathlib import Path
from safetensors.numpy import load_file
from trainer.interrupt import InterruptedRun
from trainer.progress import Reporter
from trainer.settings import settings_from
from trainer import train

data, base, out = map(Path, sys.argv[1:])
asked = dict(base=str(base), epochs=1, batch_size=16, learning_rate=3e-3, precision="float32", clip_norm=0.05,
             optimizer="adam", average=0.5)
found = {}
for devices in (1, 2):
    settings = settings_from(**asked, devices=devices)
    train.train(settings, data, out / str(devices), force=False, reporter=Reporter())
    found[devices] = load_file(out / str(devices) / "model.safetensors")
for name, tensor in found[1].items():
    np.testing.assert_allclose(found[2][name], tensor, atol=3e-4, err_msg=name)

class Stop:
    steps = 5
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
    @property
    def number(self):
        self.steps -= 1
        return 2 if self.steps <= 0 else None

train.Interrupt = Stop
settings = settings_from(**asked, devices=2)
try:
    train.train(settings, data, out / "parts", force=False, reporter=Reporter())
except InterruptedRun:
    Stop.steps = 1000
    train.train(settings, data, out / "parts", force=False, reporter=Reporter(), conduct=train.Conduct(resume=True))
    parts = load_file(out / "parts" / "model.safetensors")
    assert all((parts[name] == tensor).all() for name, tensor in found[2].items())
    print("same")
"""


@pytest.mark.slow
def test_two_devices_train_as_one_and_resume(toy_data: Path, base: Path, tmp_path: Path) -> None:
    still = Path(shutil.copytree(base, tmp_path / "base"))
    edit_json(still / "config.json", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    command = [sys.executable, "-c", SCRIPT, str(toy_data), str(still), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout == "same\n", ended.stderr[-3000:]
    assert "each shared by 2 devices" in ended.stderr


def test_more_devices_than_there_are_is_one_line(program: Program, toy_data: Path, base: Path, tmp_path: Path) -> None:
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", "--devices", 64)
    assert ended.code == 2
    assert ended.err.strip().splitlines()[-1].startswith("error: --devices 64: ")


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    refuse_small([np.arange(8), np.arange(2)], 2)
    with pytest.raises(UsageError, match="--devices 3: a batch has 2 reviews"):
        refuse_small([np.arange(8), np.arange(2)], 3)


@pytest.mark.parametrize(
    ("asked", "precision", "fault"),
    [
        ({"accumulate": 2}, "float32", "--accumulate: not with --devices"),
        ({"xla": True}, "float32", "--xla: not with --devices"),
        ({}, "mixed_float16", "--devices: not in mixed_float16"),
    ],
)
def test_what_several_devices_cannot_do_is_refused(asked: dict[str, Any], precision: Precision, fault: str) -> None:
    refuse_unshared(settings_from(base="b", **asked), precision)
    with pytest.raises(SettingsError, match=fault):
        refuse_unshared(settings_from(base="b", devices=2, **asked), precision)
