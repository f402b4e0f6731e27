"""Read or draw the questions of a folder: its own triplets, or questions drawn from its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dqecir.data.catalogue import read_catalogue
from dqecir.data.own_triplets import TRIPLETS, has_triplets, read_triplets
from dqecir.data.triplets import Benchmark
from dqecir.errors import DataError
from dqecir.questions.composing import catalogue_benchmark


def folder_questions(
    folder: Path,
    split: str,
    *,
    count: int | None = None,
    seed: int = 0,
    columns: Sequence[str] | None = None,
    gallery_column: str | None = None,
    name: str | None = None,
    **drawing: Any,
) -> Benchmark:
    """Return the questions of a split of ``folder`` as a benchmark with the name ``name``.

    If the folder has ``triplets.jsonl``, its questions are read, and ``count`` of them are drawn. Otherwise
    ``count`` questions are drawn from ``columns`` of the table (default: all) by
    :func:`~dqecir.questions.composing.catalogue_benchmark`, which explains ``gallery_column`` and the
    arguments ``drawing``. ``seed`` draws the questions. Raises :class:`DataError` if ``columns`` or
    ``gallery_column`` are named and the questions come from ``triplets.jsonl``.
    """
    if has_triplets(folder):
        if columns is not None or gallery_column is not None:
            column = gallery_column or ", ".join(columns or ())
            raise DataError(
                f"{folder} takes its questions from {TRIPLETS}, which has no columns: leave out {column!r}, "
                "or give each line a category with its own gallery"
            )
        return read_triplets(folder, split, count, seed, name)
    catalogue = read_catalogue(folder)
    if columns is not None:
        catalogue = catalogue.with_columns(columns)
    return catalogue_benchmark(
        catalogue, split, seed=seed, count=count, gallery_column=gallery_column, name=name, **drawing
    )
