"""Devices and the precision that suits them."""

import pytest

from trainer.device import Device, choose_precision, find_device
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
