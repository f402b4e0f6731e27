"""Every data set's experiment, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dqecir.experiments.reproduce.preference_run import reproduce_preferences
from dqecir.experiments.reproduce.reproduction_report import Report
from dqecir.experiments.reproduce.request import Request
from dqecir.experiments.reproduce.retrieval import reproduce_retrieval

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
    return EXPERIMENTS[request.data_set.name](request)
