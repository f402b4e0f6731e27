"""Prepare a process to start quickly and to share the machine with others."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Never look for garbage among the objects that exist when the block ends.

    Most of them are torch's, and live as long as the process. Looking through them while they are made, and
    again when the process ends, takes a quarter of a search from the command line.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def let_threads_sleep() -> None:
    """Have threads sleep while they wait for each other, unless the user's environment says otherwise.

    They spin otherwise, on cores that others need: beside other busy processes, such as the writer of an
    index, a search then takes many times as long. It counts for what loads torch afterwards.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
