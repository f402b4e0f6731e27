"""Scores from true attributes: the best that retrieval on a benchmark can reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark
from dqecir.errors import DataError
from dqecir.evaluation.metrics import Scores
from dqecir.questions.answers import CodedAttributes, RequestedValues

Oracle = Literal["full", "text", "image"]

ORACLES: tuple[Oracle, ...] = ("full", "text", "image")

_JITTER = 5e-4


def oracle_scores(
    benchmark: Benchmark, kind: Oracle, *, seed: int = 0, chunk: int = 256
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield (category, numbers of Q triplets, scores [Q, N] over the gallery), ``chunk`` queries at a time.

    ``full`` counts how many attributes are as in a right answer: requested ones that have a requested value,
    and others that equal the reference's, are empty in one of the two, or are unknown for the reference.
    Right answers score highest. ``text`` counts only requested attributes, ``image`` all that equal the
    reference's. Because many counts are equal, a random number below 0.0005, drawn with ``seed``, is added to
    each, so that ties are broken at random and not by position. Raises ``DataError`` for another ``kind``, or
    if the benchmark has no true attributes.
    """
    if kind not in ORACLES:
        raise DataError(f"there is no oracle {kind!r}: choose one of {', '.join(ORACLES)}")
    if not benchmark.attributes:
        raise DataError(
            f"{benchmark.name} has no true attributes, so there is no oracle for it: use a catalogue"
        )
    coded = CodedAttributes.of(benchmark.attributes)
    for category, gallery in benchmark.galleries.items():
        numbers = np.flatnonzero([triplet.category == category for triplet in benchmark.triplets])
        for start in range(0, len(numbers), chunk):
            some = numbers[start : start + chunk]
            references = np.array([benchmark.triplets[i].reference for i in some], dtype=np.int64)
            asked = [benchmark.triplets[i].asked for i in some]
            scores = np.stack([_jitter(seed, i, gallery.size) for i in some.tolist()])
            for column in range(len(coded.columns)):
                table = _satisfying(coded, column, references, asked, kind)
                scores += table[:, coded.codes[column, gallery]]
            yield category, some, scores


def _satisfying(
    coded: CodedAttributes,
    column: int,
    references: NDArray[np.int64],
    asked: list[RequestedValues],
    kind: Oracle,
) -> Scores:
    """Return a mask [Q, codes] of 0 and 1: which codes of a column count for each question.

    ``kind`` as in :func:`oracle_scores`; ``references`` and ``asked`` are those of the questions.
    """
    admitted = coded.admitted(column, references, asked)
    if kind == "text":
        admitted[[coded.columns[column] not in wanted for wanted in asked]] = False
    if kind == "image":
        admitted = coded.codes[column, references][:, None] == np.arange(admitted.shape[1])
    return admitted.astype(np.float32)


def _jitter(seed: int, query: int, size: int) -> Scores:
    return np.random.default_rng((seed, query)).random(size, dtype=np.float32) * np.float32(_JITTER)
