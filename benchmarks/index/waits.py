"""Measure how long searches wait while items are added and deleted, and while half of all are deleted at
once.

Another process writes to an exact index, and a thread checks for changes all the time, as in a service.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.index.rivals import BEST

from dqecir.index.contract import Index, ItemBatch, SearchSettings
from dqecir.index.engines import open_index

ADDED = 64
"""Items of one addition."""

Measurement = dict[str, Any]
Over = Callable[[], bool]


def waits(
    folder: Path, asked_for: torch.Tensor, seconds: float, candidates: int | None = None
) -> Measurement:
    """Return the times of searches in milliseconds, before and while an index is written to.

    With no number of candidates it is searched in the engine's own way.
    """
    settings = SearchSettings(candidates=candidates, exact_up_to=candidates) if candidates else None
    index = open_index(folder)
    index.configure(settings)
    end = time.perf_counter() + seconds
    quiet = _searches(index, asked_for, lambda: time.perf_counter() > end)
    before = index.generation
    with _by_a_process(folder, index, seconds) as over:
        busy = _searches(index, asked_for, over)
    return {
        "candidates": candidates,
        "quiet": quiet,
        "while_written": busy,
        "generations": index.generation - before,
        "items_left": len(index),
    }


def _searches(index: Index, asked_for: torch.Tensor, over: Over) -> Measurement:
    taken: list[float] = []
    while not over():
        started = time.perf_counter()
        index.search(asked_for[len(taken) % len(asked_for)][None], BEST)
        taken.append(1000 * (time.perf_counter() - started))
    return {
        "searches": len(taken),
        "p50_ms": statistics.median(taken),
        "p99_ms": float(np.quantile(taken, 0.99)),
        "longest_ms": max(taken),
    }


@contextmanager
def _by_a_process(folder: Path, index: Index, seconds: float) -> Iterator[Over]:
    writer = multiprocessing.get_context("spawn").Process(target=_write_opened, args=(folder, seconds))
    writer.start()
    stopped = threading.Event()

    def look() -> None:
        while not stopped.is_set():
            index.refresh()
            time.sleep(0.05)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield lambda: not writer.is_alive()
    finally:
        stopped.set()
        looking.join()
        writer.join()
    if writer.exitcode:
        raise RuntimeError("the writer failed")
    index.refresh()


def _write_opened(folder: Path, seconds: float) -> None:
    _write(open_index(folder), seconds)


def _write(index: Index, seconds: float) -> None:
    count = len(index)
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        ids = [f"new{number}-{row}" for row in range(ADDED)]
        tokens = index.tokens([str(row) for row in range(ADDED)])
        index.add(ItemBatch(ids, tokens, [{}] * ADDED))
        index.delete(ids[::2])
        number += 1
    index.delete([str(row) for row in range(count // 2 + ADDED)])
