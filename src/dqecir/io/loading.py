"""Load modules and models quickly."""

from __future__ import annotations

import gc
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
