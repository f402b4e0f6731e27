"""Files for the evaluation servers of CIRR and CIRCO, and CIRCO's own way to score one.

Sources: CIRR (arXiv 2108.04024), CIRCO (2303.15247) and their published submission formats.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.annotations import Questions, read_json
from dqecir.data.triplets import Benchmark, Positions
from dqecir.errors import DataError
from dqecir.evaluation.metrics import KEPT, Scores, average_precision
from dqecir.io.files import write_text
from dqecir.methods.scoring import best_columns

SUBSET_KEPT = 3
CIRR_HEAD = {"version": "rc2"}
CIRCO_CUTS = (5, 10, 25, 50)


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


def cirr_submission(rankings: Rankings) -> tuple[dict[str, Any], dict[str, Any]]:
    """CIRR's two files: 50 names a pair, and the 3 best names of its subset.

    Raises :class:`DataError` where the questions have no subsets, and so are not CIRR's.
    """
    questions = rankings.questions.questions
    if not all(rankings.subset_found):
        raise DataError(f"{rankings.questions.name} has questions without a subset: read CIRR's test1")
    recall: dict[str, Any] = {**CIRR_HEAD, "metric": "recall"}
    subset: dict[str, Any] = {**CIRR_HEAD, "metric": "recall_subset"}
    for question, found, inside in zip(questions, rankings.found, rankings.subset_found, strict=True):
        recall[question.pair_id] = rankings.names(found)
        subset[question.pair_id] = rankings.names(inside)
    return recall, subset


def circo_submission(rankings: Rankings) -> dict[str, list[int]]:
    """CIRCO's file: 50 COCO numbers a question."""
    if rankings.questions.name != "circo":
        raise DataError(
            f"a CIRCO submission answers CIRCO, and these are questions of {rankings.questions.name}"
        )
    return {
        question.pair_id: [int(name) for name in rankings.names(found)]
        for question, found in zip(rankings.questions.questions, rankings.found, strict=True)
    }


def write_submissions(folder: Path, rankings: Rankings) -> list[Path]:
    """Write the files of the data set at hand into ``folder``; returns their paths.

    Raises :class:`DataError` for a data set that has no server.
    """
    name, split = rankings.questions.name, rankings.questions.split
    files: dict[str, Mapping[str, Any]]
    if name == "cirr":
        recall, subset = cirr_submission(rankings)
        files = {f"cirr_{split}_recall.json": recall, f"cirr_{split}_recall_subset.json": subset}
    elif name == "circo":
        files = {f"circo_{split}.json": circo_submission(rankings)}
    else:
        raise DataError(f"{name} has no evaluation server: there is no submission to write")
    for file, values in files.items():
        # Without indentation: CIRR's server takes 5 MB at most.
        write_text(folder / file, json.dumps(values) + "\n")
    return [folder / file for file in files]


def read_circo_submission(path: Path) -> dict[str, list[int]]:
    """A submission file as it is; raises :class:`DataError` for one that is not."""
    values = read_json(path, "a CIRCO submission")
    right = isinstance(values, dict) and all(
        isinstance(ids, list) and all(isinstance(image, int) for image in ids) for ids in values.values()
    )
    if not right:
        raise DataError(f"{path} is not a CIRCO submission: it should map questions to lists of COCO numbers")
    return values


def score_circo(benchmark: Benchmark, submission: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Score a submission as CIRCO's own code does, in percent, under the names of the protocol ``circo``.

    A list that is shorter than a cut has no further hits; nothing is masked. Raises
    :class:`DataError` where the questions are not those of ``benchmark``, a list names an image
    twice, or one that is not a candidate.
    """
    wanted = [triplet.pair_id for triplet in benchmark.triplets]
    if set(submission) != set(wanted):
        odd = sorted(set(submission) ^ set(wanted), key=lambda number: (len(number), number))
        raise DataError(
            f"the submission does not answer the {len(wanted)} questions of {benchmark.name} "
            f"{benchmark.split}: {len(odd)} are missing or too many ({', '.join(odd[:3])})"
        )
    places = {image: place for place, image in enumerate(benchmark.image_ids)}
    longest = max(len(ids) for ids in submission.values())
    found = np.full((len(wanted), max(longest, 1)), -1, dtype=np.int64)
    for row, number in enumerate(wanted):
        names = [str(image) for image in submission[number]]
        if len(set(names)) != len(names):
            raise DataError(f"question {number} of the submission names an image twice")
        unknown = [name for name in names if name not in places]
        if unknown:
            raise DataError(f"question {number} names the image {unknown[0]}, which is not in the gallery")
        found[row, : len(names)] = [places[name] for name in names]
    triplets = benchmark.triplets
    hits = np.stack([np.isin(row, triplet.relevant) for row, triplet in zip(found, triplets, strict=True)])
    own = found == np.array([triplet.target for triplet in triplets])[:, None]
    relevant = np.array([len(triplet.relevant) for triplet in triplets], dtype=np.int64)
    precision = {k: 100 * average_precision(hits, relevant, k) for k in CIRCO_CUTS}
    table = {f"mAP@{k}": float(values.mean()) for k, values in precision.items()}
    table |= {f"R@{k}": 100 * float(own[:, :k].any(axis=1).mean()) for k in CIRCO_CUTS}
    for aspect in dict.fromkeys(aspect for triplet in triplets for aspect in triplet.aspects):
        rows = np.array([aspect in triplet.aspects for triplet in triplets])
        table[f"{aspect}/mAP@10"] = float(precision[10][rows].mean())
    return table
