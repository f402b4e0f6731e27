"""Scores by true attributes alone, which are upper bounds of a benchmark."""

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
    """Yield (category, triplet numbers [Q], scores [Q, N] over its gallery), ``chunk`` queries at a time.

    ``full`` counts the satisfied conditions: requested attributes with a requested value, and all others
    equal to the reference's if both have a value; right answers tie at the top. ``text`` counts only the
    requested conditions. ``image`` counts the attributes that equal the reference's. An unknown value
    satisfies no condition. Many counts tie, so each score gets a seeded random jitter below 1e-3, which is
    independent of chunks, and breaks ties at random instead of by position. Raises ``DataError`` if the
    benchmark has no true attributes.
    """
    if kind not in ORACLES:
        raise DataError(f"the oracle {kind!r} is none of {', '.join(ORACLES)}")
    if not benchmark.attributes:
        raise DataError(f"{benchmark.name} has no true attributes, so there is no oracle for it")
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
    """Return which codes of a column score a point: [Q, codes]."""
    admitted = coded.admitted(column, references, asked)
    if kind == "text":
        admitted[[coded.columns[column] not in wanted for wanted in asked]] = False
    if kind == "image":
        admitted = coded.codes[column, references][:, None] == np.arange(admitted.shape[1])
    return admitted.astype(np.float32)


def _jitter(seed: int, query: int, size: int) -> Scores:
    return np.random.default_rng((seed, query)).random(size, dtype=np.float32) * np.float32(_JITTER)
