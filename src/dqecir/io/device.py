"""Choose the device (CPU or GPU) on which models are trained, fitted, measured and searched."""

from __future__ import annotations

import os

import torch

from dqecir.errors import DataError

VARIABLE = "DQECIR_DEVICE"
"""Environment variable with the name of a device, which is then used instead of the fastest."""


AUTO = "auto"
"""The name ``auto``: the device of ``DQECIR_DEVICE``, else the GPU, else the CPU."""


def use_device(name: str) -> None:
    """Choose the device of this process and of those that it starts; ``auto`` changes nothing.

    ``name`` is auto, cpu, cuda or mps.
    """
    if name != AUTO:
        os.environ[VARIABLE] = name


def chosen_device() -> torch.device:
    """Return the device of ``DQECIR_DEVICE``. Default: the GPU (cuda or mps), else the CPU.

    Each process of a distributed training gets its own GPU, if there are enough. Raises :class:`DataError`
    for a device that this machine does not have.
    """
    return device_named(os.environ.get(VARIABLE) or usable_devices()[0])


def device_named(name: str) -> torch.device:
    """Return the device with a name: auto, cpu, cuda or mps; raises as :func:`chosen_device`."""
    if name == AUTO:
        return chosen_device()
    known = usable_devices()
    if name.partition(":")[0] not in known:
        raise DataError(
            f"there is no device {name!r} here (--device, or {VARIABLE}); "
            f"this machine has {' and '.join(known)}"
        )
    rank = os.environ.get("LOCAL_RANK")
    if name == "cpu" or ":" in name or rank is None:
        return torch.device(name)
    return torch.device(name, int(rank) % torch.accelerator.device_count())


def usable_devices() -> list[str]:
    """Return the names of the devices of this machine, the fastest first."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ["cpu"] if accelerator is None else [accelerator.type, "cpu"]


def on_cpu() -> bool:
    """Return whether the chosen device is the CPU."""
    return chosen_device().type == "cpu"
