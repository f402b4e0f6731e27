"""Measure the cost of training: CPU seconds of all cores, or seconds on the clock with an accelerator."""

from __future__ import annotations

import time

UNITS = {"cpu_seconds": "CPU-s", "gpu_seconds": "GPU-s"}
"""Key in JSON -> unit in tables."""


def spent_name(on_cpu: bool) -> str:
    """Return the key of :data:`UNITS` for training on the CPU, or with an accelerator."""
    return "cpu_seconds" if on_cpu else "gpu_seconds"


class Stopwatch:
    """Counts the seconds of work, without pauses between a stop and the next start.

    On a CPU these are the CPU seconds of all threads. With an accelerator, which works in parallel with the
    host, it is the time on the clock until the host next waits for the accelerator. The stopwatch itself
    never makes the host wait.
    """

    def __init__(self, on_cpu: bool) -> None:
        self.on_cpu = on_cpu
        self.seconds = 0.0
        self._clock = time.process_time if on_cpu else time.perf_counter
        self._started: float | None = None

    @property
    def name(self) -> str:
        """The unit of the seconds: a key of :data:`UNITS`."""
        return spent_name(self.on_cpu)

    def start(self) -> None:
        """Start counting; does nothing if it is already counting."""
        if self._started is None:
            self._started = self._clock()

    def returned(self) -> None:
        """Record that the host has finished a step. On a CPU, stop counting.

        An accelerator may still be working on the step.
        """
        if self.on_cpu:
            self.stop()

    def stop(self) -> None:
        """Record that all work is done, also on the accelerator."""
        if self._started is not None:
            self.seconds += self._clock() - self._started
            self._started = None
