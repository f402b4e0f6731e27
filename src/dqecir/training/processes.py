"""Processes that train one model together, each on its device."""

from __future__ import annotations

from datetime import timedelta

from accelerate import PartialState

from dqecir.io.device import on_cpu

LONGEST_WAIT = timedelta(days=3)
"""Longest time that processes wait for the one that encodes images."""


def processes() -> PartialState:
    """Return the state of this process in a training: its rank, its device, and the main process's lock."""
    return PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
