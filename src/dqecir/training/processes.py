"""The processes that train one model together, each on its device."""

from __future__ import annotations

from datetime import timedelta

from accelerate import PartialState

from dqecir.io.device import on_cpu

LONGEST_WAIT = timedelta(days=3)
"""How long processes wait for the one that encodes images."""


def processes() -> PartialState:
    """Return which process of a training this is, its device, and what lets the main one go first."""
    return PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
