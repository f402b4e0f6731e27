"""The state of this process among those that train one model together: its rank, device and waiting time."""

from __future__ import annotations

from datetime import timedelta

from accelerate import PartialState

from dqecir.io.device import on_cpu

LONGEST_WAIT = timedelta(days=3)
"""How long processes wait for the one that encodes images."""


def processes() -> PartialState:
    """Return the state of this process: its rank, its device, and how it waits for the main process."""
    return PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
