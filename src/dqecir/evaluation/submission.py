"""Write files for the evaluation servers of CIRR and CIRCO.

Sources: CIRR (arXiv 2108.04024), CIRCO (2303.15247) and their published submission formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.annotations import Questions
from dqecir.data.triplets import Positions
from dqecir.errors import DataError
from dqecir.evaluation.metrics import KEPT, Scores
from dqecir.io.files import write_text
from dqecir.methods.scoring import best_columns

SUBSET_KEPT = 3
CIRR_HEAD = {"version": "rc2"}


@dataclass(frozen=True)
class Rankings:
    """The best candidates of every question, as positions in ``questions.image_ids``, best first."""

    questions: Questions
    found: tuple[tuple[int, ...], ...]
    """50 of each question, fewer where its gallery holds fewer."""
    subset_found: tuple[tuple[int, ...], ...]
    """The best 3 of each question's subset; empty where it has none."""

    def names(self, found: Sequence[int]) -> list[str]:
        """Image ids of positions."""
        return [self.questions.image_ids[place] for place in found]


def rank_questions(questions: Questions, chunks: Iterable[tuple[str, NDArray[np.int64], Scores]]) -> Rankings:
    """Rank from chunks of scores (category, question numbers [q], scores [q, |gallery|]).

    The reference is taken out where the data set says so; equal scores rank by position. Raises
    :class:`DataError` for scores that are not finite numbers or not of the gallery, and where a
    question was left out or scored twice.
    """
    asked = questions.questions
    found: dict[int, tuple[int, ...]] = {}
    subset_found: dict[int, tuple[int, ...]] = {}
    for category, numbers, scores in chunks:
        gallery = questions.galleries[category]
        if scores.shape != (len(numbers), gallery.size) or not np.isfinite(scores).all():
            raise DataError(
                f"scores of the category {category!r} should be finite numbers of the shape "
                f"{[len(numbers), gallery.size]}, not {list(scores.shape)}"
            )
        for number, row in zip(numbers.tolist(), scores, strict=True):
            question = asked[number]
            if question.category != category or number in found:
                raise DataError(f"question {question.pair_id} was scored twice, or in another category")
            row = np.array(row, dtype=np.float32)
            if questions.mask_reference:
                row[gallery == question.reference] = -np.inf
            found[number] = _best(row, gallery, KEPT)
            inside = np.isin(gallery, question.subset)
            subset_found[number] = _best(row[inside], gallery[inside], SUBSET_KEPT)
    if len(found) != len(asked):
        raise DataError(f"{len(asked) - len(found)} of {len(asked)} questions were not scored")
    order = range(len(asked))
    return Rankings(questions, tuple(found[n] for n in order), tuple(subset_found[n] for n in order))


def _best(scores: Scores, positions: Positions, k: int) -> tuple[int, ...]:
    if not scores.size:
        return ()
    values, columns = best_columns(torch.from_numpy(scores)[None], k)
    return tuple(positions[columns[0].numpy()][values[0].numpy() > -np.inf].tolist())


def submission_files(rankings: Rankings) -> dict[str, dict[str, Any]]:
    """File name -> content of what the server of the data set takes.

    CIRR's two files: 50 names a pair, and the 3 best names of its subset. CIRCO's file: 50 COCO numbers a
    question. Raises :class:`DataError` for a data set that has no server, and for questions of CIRR
    without a subset.
    """
    name, split = rankings.questions.name, rankings.questions.split
    pairs = [question.pair_id for question in rankings.questions.questions]
    found = dict(zip(pairs, map(rankings.names, rankings.found), strict=True))
    if name == "circo":
        return {f"circo_{split}.json": {pair: [int(image) for image in own] for pair, own in found.items()}}
    if name != "cirr":
        raise DataError(f"{name} has no evaluation server: there is no submission to write")
    if not all(rankings.subset_found):
        raise DataError("cirr has questions without a subset: read CIRR's test1")
    inside = dict(zip(pairs, map(rankings.names, rankings.subset_found), strict=True))
    return {
        f"cirr_{split}_recall.json": {**CIRR_HEAD, "metric": "recall", **found},
        f"cirr_{split}_recall_subset.json": {**CIRR_HEAD, "metric": "recall_subset", **inside},
    }


def write_submissions(folder: Path, rankings: Rankings) -> list[Path]:
    """Write the files of the data set at hand into ``folder``; returns their paths.

    Raises as :func:`submission_files`.
    """
    files = submission_files(rankings)
    for file, values in files.items():
        # Without indentation: CIRR's server takes 5 MB at most.
        write_text(folder / file, json.dumps(values) + "\n")
    return [folder / file for file in files]
