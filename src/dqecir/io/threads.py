"""How torch's threads wait for each other."""

from __future__ import annotations

import os


def let_threads_sleep() -> None:
    """Have threads sleep while they wait for each other, unless the user's environment says otherwise.

    They spin otherwise, on cores that others need: beside other busy processes, such as the writer of an
    index, a search then takes many times as long. It counts for what loads torch afterwards.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
