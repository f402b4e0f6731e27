"""Count and measure the memory of a training step by batch and precision; measure whether compiling pays off.

    python -m benchmarks.speed.memory --out WORK/memory.json

Counted: a step of the published shapes runs on tensors without values, and all existing tensors are added up,
operation by operation: weights (including the frozen tower), gradients, AdamW's moments, activations, the
batch's tokens. Attention is counted as a CPU computes it, which needs more memory than a GPU.

Measured: the same step, its tower cut to one block so that it fits a small machine, in a separate process: on
a CPU the growth of its resident memory, on a GPU the maximum of the allocator. It is compared with the count
of the same step.

Every row is written immediately, so that little is lost if the script is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
import weakref
from itertools import product
from pathlib import Path
from typing import Any

import torch
from benchmarks.speed.step import SIZES, a_batch, method_of, optimizer_of, train
from benchmarks.speed.timing import machine, paired
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dqecir.io.files import write_json

BATCHES = (8, 16, 32, 64, 128, 256, 512, 1024)
PRECISIONS = ("fp32", "bf16")
SMALL = {f"{name}, one block": size.tower.model_copy(update={"layers": 1}) for name, size in SIZES.items()}
for small, tower in SMALL.items():
    SIZES[small] = SIZES[small.split(",")[0]].model_copy(update={"tower": tower})


class Alive(TorchDispatchMode):
    """The bytes of all existing storages that operations have made, and their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.add(value.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self.known:
            self.known.add(id(storage))
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.drop, id(storage), storage.nbytes())

    def drop(self, known: int, size: int) -> None:
        self.known.discard(known)
        self.now -= size


def stored(tower: str, batch: int) -> Tensor:
    """Return tokens of the images of a batch as the store gives them."""
    config = SIZES[tower].tower
    return torch.randn(3 * batch, config.token_count, config.token_width)


def counted(tower: str, batch: int, precision: str) -> dict[str, int]:
    """Return the maximum of bytes alive in two steps, and those of weights alone; nothing is computed."""
    with torch.device("meta"):
        method = method_of(tower)
    alive = Alive()
    with FakeTensorMode(allow_non_fake_inputs=True), alive:
        method.to_empty(device="cpu")
        weights = alive.now
        optimizer = optimizer_of(method)
        made = a_batch(batch, stored(tower, batch), torch.Generator())
        for _ in range(2):
            train(method, optimizer, made, precision)
    return {"weights": weights, "most": alive.most}


def measured(tower: str, batch: int, precision: str) -> int:
    """Return the bytes that a real process needed for the same two steps."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    method = method_of(tower).to(device)
    optimizer = optimizer_of(method)
    made = a_batch(batch, stored(tower, batch).to(device), torch.Generator().manual_seed(0))
    for _ in range(2):
        train(method, optimizer, made, precision)
    if cuda:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def compiled(tower: str, batch: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step, of a compiled one, and of the first compiled one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    method = method_of(f"{tower}, one block").to(device)
    optimizer = optimizer_of(method)
    made = a_batch(batch, stored(tower, batch).to(device), torch.Generator().manual_seed(0))
    fast = torch.compile(method)
    started = time.perf_counter()
    train(fast, optimizer, made, "fp32")
    first = time.perf_counter() - started
    work = {
        "as it is": lambda: train(method, optimizer, made, "fp32"),
        "compiled": lambda: train(fast, optimizer, made, "fp32"),
    }
    return {"first": first, "seconds": paired(work, device, rounds)}


def elsewhere(*arguments: str, limit: float | None = None) -> Any:
    """Return the result of a measurement in a new process; None if it exceeds the time limit."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", *arguments]
    # Its compilers too are ended with it.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--measure", type=int, nargs="*", default=(8, 16), help="batches that are run")
    parser.add_argument("--compile", type=int, default=8, help="batch of the compiled step, 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile-seconds", type=float, default=300, help="given up after that long")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--alone", nargs=3, metavar=("TOWER", "BATCH", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument("--compiled", nargs=2, metavar=("TOWER", "BATCH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        tower, batch, precision = given.alone
        print(json.dumps(measured(tower, int(batch), precision)))
        return
    if given.compiled:
        tower, batch = given.compiled
        print(json.dumps(compiled(tower, int(batch), given.rounds)))
        return
    if given.out is None:
        parser.error("--out is needed")
    towers = [name for name in SIZES if name not in SMALL]
    found: dict[str, Any] = {"counted": [], "checks": [], "compiled": None}

    def write() -> None:
        write_json(given.out, {**found, "machine": machine()})

    for tower, precision, batch in product(towers, PRECISIONS, given.batches):
        row = {"tower": tower, "batch": batch, "precision": precision}
        found["counted"].append({**row, **counted(tower, batch, precision)})
        write()
    for tower, precision, batch in product(SMALL, PRECISIONS, given.measure):
        row = {"tower": tower, "batch": batch, "precision": precision}
        measurement = elsewhere("--alone", tower, str(batch), precision)
        most = counted(tower, batch, precision)["most"]
        found["checks"].append({**row, "counted": most, "measured": measurement})
        write()
    if given.compile:
        step = ("--compiled", towers[0], str(given.compile), "--rounds", str(given.rounds))
        taken = elsewhere(*step, limit=given.compile_seconds)
        asked = {"tower": towers[0], "batch": given.compile, "limit": given.compile_seconds}
        found["compiled"] = {**asked, "found": taken}
        write()


if __name__ == "__main__":
    main()
