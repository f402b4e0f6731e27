"""Time pieces of work fairly: warm-up, alternation, medians, and a description of the machine."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def machine() -> dict[str, Any]:
    """Describe the machine of a timing."""
    found: dict[str, Any] = {
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def waited(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def square_product(device: torch.device, precision: str) -> tuple[Callable[[], Tensor], int]:
    """Return a product of two large square matrices in ``precision`` (fp32 or bf16), and its number of
    operations.

    Its rate is the upper limit for matrix products of the device.
    """
    side = 8192 if device.type == "cuda" else 4096
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2 * side**3


def paired(
    what: Mapping[str, Callable[[], Any]], device: torch.device, rounds: int, warm_up: int = 1
) -> dict[str, dict[str, float]]:
    """Return seconds of each piece of work, done in turns: median, least and most of ``rounds``."""
    for work in what.values():
        for _ in range(warm_up):
            work()
    taken: dict[str, list[float]] = {name: [] for name in what}
    for _ in range(rounds):
        for name, work in what.items():
            waited(device)
            started = time.perf_counter()
            work()
            waited(device)
            taken[name].append(time.perf_counter() - started)
    return {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, values in taken.items()
    }
