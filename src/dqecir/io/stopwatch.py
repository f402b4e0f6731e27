"""Measure the cost of training: CPU seconds of all cores, or seconds by the clock on an accelerator."""

from __future__ import annotations

import time

UNITS = {"cpu_seconds": "CPU-s", "gpu_seconds": "GPU-s"}
"""Units of cost: the key in JSON -> the title in tables."""


def spent_name(on_cpu: bool) -> str:
    """Return the key of ``UNITS`` for the seconds of this machine."""
    return "cpu_seconds" if on_cpu else "gpu_seconds"


class Stopwatch:
    """Count the seconds of work, without the pauses between a stop and the next start.

    On a CPU these are the CPU seconds of all threads. An accelerator works in parallel with the host; its
    clock runs until the host next waits for it. The stopwatch itself never makes the host wait.
    """

    def __init__(self, on_cpu: bool) -> None:
        self.on_cpu = on_cpu
        self.seconds = 0.0
        self._clock = time.process_time if on_cpu else time.perf_counter
        self._started: float | None = None

    @property
    def name(self) -> str:
        """The unit of the seconds, a key of ``UNITS``."""
        return spent_name(self.on_cpu)

    def start(self) -> None:
        """Note that work begins, or goes on if it was not stopped."""
        if self._started is None:
            self._started = self._clock()

    def returned(self) -> None:
        """Note that the host has finished a step; an accelerator may still be working on it."""
        if self.on_cpu:
            self.stop()

    def stop(self) -> None:
        """Note that all work is done, on the accelerator too."""
        if self._started is not None:
            self.seconds += self._clock() - self._started
            self._started = None
