"""Measure the time of each kind of operation in a piece of work.

Times are those of the operations themselves: on the accelerator if there is one, else on the processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.speed.timing import waited
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "optimizer": ("adam", "Optimizer", "foreach"),
    "attention": ("attention", "bmm"),
    "softmax and normalisation": ("softmax", "norm", "isneginf", "aten::all"),
    "matrix products": ("mm", "linear", "convolution", "aten::mv", "addmv", "aten::dot"),
    "random numbers of dropout": ("bernoulli", "dropout"),
    "copies and conversions": (
        *("copy", "aten::cat", "fill_", "zero_", "clone", "aten::to", "index", "embedding", "stack"),
        *("gather", "scatter", "empty", "Memcpy", "Memset"),
    ),
    "element by element, and sums": (
        *("aten::add", "aten::sub", "aten::mul", "aten::div", "gelu", "tanh", "sigmoid", "relu"),
        *("where", "masked_fill", "sum", "mean", "aten::neg", "sqrt", "pow", "aten::log", "clamp"),
        *("amax", "aten::eq", "aten::lt", "aten::gt", "aten::abs", "rsub", "aten::max"),
    ),
}
"""Kind -> parts of the names of its operations; the first kind that fits counts. Only attention multiplies
in batches (``bmm``), but for sums that are too small to be seen."""
REST = "rest"


def profiled(work: Callable[[], Any], device: torch.device, times: int = 2) -> dict[str, Any]:
    """Return the seconds of one piece of ``work``, summed over its operations, and the share of each kind."""
    on_device = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    waited(device)
    with profile(activities=activities) as seen:
        for _ in range(times):
            work()
        waited(device)
    taken = dict.fromkeys([*KINDS, REST], 0.0)
    for event in seen.key_averages():
        # What a kernel takes stands with the operation that started it, and once more by the kernel's name.
        if event.device_type == DeviceType.CPU:
            own = event.self_device_time_total if on_device else event.self_cpu_time_total
            taken[kind_of(event.key)] += own
    whole = sum(taken.values())
    return {"seconds": whole / times / 1e6, "shares": {name: own / whole for name, own in taken.items()}}


def kind_of(operation: str) -> str:
    """Return the kind of an operation by its name."""
    if operation.startswith("autograd::") or "Backward" in operation:
        return REST
    return next((kind for kind, parts in KINDS.items() if any(part in operation for part in parts)), REST)
