"""Every data set's experiment, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from accelerate import PartialState

from dqecir.experiments.reproduce.preference_run import reproduce_preferences
from dqecir.experiments.reproduce.reproduction_report import Report
from dqecir.experiments.reproduce.request import Request
from dqecir.experiments.reproduce.retrieval import reproduce_retrieval
from dqecir.training.loop import on_cpu

LONGEST_WAIT = timedelta(days=3)
"""How long processes wait for the one that encodes; ten minutes of them unless told."""

EXPERIMENTS: Mapping[str, Callable[[Request], Report | None]] = {
    "fashioniq": reproduce_retrieval,
    "cirr": reproduce_retrieval,
    "circo": reproduce_retrieval,
    "hp-fashioniq": reproduce_preferences,
}


def reproduce(request: Request) -> Report | None:
    """Run a data set's experiment and write its report into ``request.out``.

    None in processes that only help to train. Raises :class:`DataError` for data, settings and runs that
    cannot be used.
    """
    name = request.data_set.name
    PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
    return EXPERIMENTS[name](request)
