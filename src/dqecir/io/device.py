"""The device that models are trained, fitted and measured on."""

from __future__ import annotations

import os

import torch

from dqecir.errors import DataError

VARIABLE = "DQECIR_DEVICE"
"""Environment variable that names a device instead of the one that is chosen."""


def chosen_device() -> torch.device:
    """Return the device that ``DQECIR_DEVICE`` names; default: the GPU (cuda, mps), else the CPU.

    Of several processes of a training, each has a GPU of its own where there are enough.
    Raises :class:`DataError` for a device that this machine does not have.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    known = ["cpu"] if accelerator is None else [accelerator.type, "cpu"]
    name = os.environ.get(VARIABLE) or known[0]
    if name not in known:
        raise DataError(f"{VARIABLE} names the device {name!r}; this machine has {' and '.join(known)}")
    rank = os.environ.get("LOCAL_RANK")
    if name == "cpu" or rank is None:
        return torch.device(name)
    return torch.device(name, int(rank) % torch.accelerator.device_count())


def on_cpu() -> bool:
    """Return whether the chosen device is the CPU."""
    return chosen_device().type == "cpu"
