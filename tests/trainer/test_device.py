"""Devices and the precision that suits them."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from trainer.device import Device, choose_precision, find_device, make_deterministic
from trainer.settings import Precision


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        (Device("cpu", "old", bfloat16=False), "float32"),
        (Device("cpu", "new", bfloat16=True), "mixed_bfloat16"),
        (Device("gpu", "Turing", bfloat16=False), "mixed_float16"),
        (Device("gpu", "Ampere", bfloat16=True), "mixed_bfloat16"),
    ],
)
def test_auto_takes_the_type_that_the_device_multiplies_in_hardware(device: Device, precision: Precision) -> None:
    assert choose_precision("auto", device)[0] == precision


def test_a_precision_that_was_asked_for_is_taken() -> None:
    assert choose_precision("mixed_float16", Device("cpu", "new", bfloat16=True)) == ("mixed_float16", "asked for")


def test_the_device_of_this_machine_is_described() -> None:
    device = find_device()
    assert device.kind in ("cpu", "gpu")
    assert device.name.startswith(device.kind.upper())


@pytest.mark.parametrize("gpus", [0, 1])
def test_deterministic_operations_are_asked_for_on_gpus(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] * gpus)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: asked.append("asked"))
    make_deterministic()
    assert len(asked) == gpus


def test_whichever_module_brings_tensorflow_in_it_computes_with_onednn() -> None:
    """Its own default on CPUs without AVX-512 is not to."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", "import trainer.job"]
    talkative = own | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    said = subprocess.run(command, env=talkative, capture_output=True, text=True, check=True).stderr
    assert "oneDNN custom operations are on" in said
