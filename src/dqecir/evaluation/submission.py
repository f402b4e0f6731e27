"""Write files for the evaluation servers of CIRR and CIRCO, and check that the servers will accept them.

Sources: CIRR (arXiv 2108.04024), CIRCO (2303.15247) and their published formats of submissions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.annotations import Question, Questions, read_json
from dqecir.data.triplets import Positions
from dqecir.errors import DataError
from dqecir.evaluation.metrics import KEPT, Scores
from dqecir.io.files import write_text
from dqecir.methods.scoring import best_columns

SUBSET_KEPT = 3
CIRR_HEAD = {"version": "rc2"}
LARGEST = 5_000_000
"""Largest size, in bytes, of a file that CIRR's server accepts."""


@dataclass(frozen=True)
class Rankings:
    """The best candidates of every question, the best first, as positions in ``questions.image_ids``."""

    questions: Questions
    found: tuple[tuple[int, ...], ...]
    """50 candidates for each question, or the whole gallery if it is smaller."""
    subset_found: tuple[tuple[int, ...], ...]
    """The best 3 of each question's subset; empty for a question without a subset."""

    def names(self, found: Sequence[int]) -> list[str]:
        """Return the image ids at some positions."""
        return [self.questions.image_ids[place] for place in found]


def rank_questions(questions: Questions, chunks: Iterable[tuple[str, NDArray[np.int64], Scores]]) -> Rankings:
    """Rank all questions from ``chunks``, which are as :func:`query_scores` yields them.

    The reference is left out if ``questions.mask_reference``; equal scores are ranked by position. Raises
    :class:`DataError` for scores that are not finite or do not fit the gallery, and if a question is not
    scored exactly once.
    """
    asked = questions.questions
    found: dict[int, tuple[int, ...]] = {}
    subset_found: dict[int, tuple[int, ...]] = {}
    for category, numbers, scores in chunks:
        gallery = questions.galleries[category]
        if scores.shape != (len(numbers), gallery.size) or not np.isfinite(scores).all():
            raise DataError(
                f"scores of the category {category!r} should be finite numbers of the shape "
                f"{[len(numbers), gallery.size]}, not {list(scores.shape)}: score each question against the "
                "whole gallery"
            )
        for number, row in zip(numbers.tolist(), scores, strict=True):
            question = asked[number]
            if question.category != category or number in found:
                raise DataError(
                    f"question {question.pair_id} was scored twice or in another category: score it once"
                )
            row = np.array(row, dtype=np.float32)
            if questions.mask_reference:
                row[gallery == question.reference] = -np.inf
            found[number] = _best(row, gallery, KEPT)
            inside = np.isin(gallery, question.subset)
            subset_found[number] = _best(row[inside], gallery[inside], SUBSET_KEPT)
    if len(found) != len(asked):
        raise DataError(
            f"{len(asked) - len(found)} of {len(asked)} questions were not scored: score each once"
        )
    order = range(len(asked))
    return Rankings(questions, tuple(found[n] for n in order), tuple(subset_found[n] for n in order))


def _best(scores: Scores, positions: Positions, k: int) -> tuple[int, ...]:
    if not scores.size:
        return ()
    values, columns = best_columns(torch.from_numpy(scores)[None], k)
    return tuple(positions[columns[0].numpy()][values[0].numpy() > -np.inf].tolist())


def submission_files(rankings: Rankings) -> dict[str, dict[str, Any]]:
    """Return file name -> contents for the server of the data set.

    CIRR has two files: 50 image names for each question, and the 3 best names of its subset. CIRCO has one:
    50 COCO numbers for each question. Raises :class:`DataError` for a data set without a server, and for
    questions of CIRR without a subset.
    """
    name, split = rankings.questions.name, rankings.questions.split
    pairs = [question.pair_id for question in rankings.questions.questions]
    found = dict(zip(pairs, map(rankings.names, rankings.found), strict=True))
    if name == "circo":
        return {f"circo_{split}.json": {pair: [int(image) for image in own] for pair, own in found.items()}}
    if name != "cirr":
        raise DataError(f"{name} has no evaluation server: a submission is written for cirr and circo only")
    if not all(rankings.subset_found):
        raise DataError("cirr has questions without a subset: read CIRR's test1")
    inside = dict(zip(pairs, map(rankings.names, rankings.subset_found), strict=True))
    return {
        f"cirr_{split}_recall.json": {**CIRR_HEAD, "metric": "recall", **found},
        f"cirr_{split}_recall_subset.json": {**CIRR_HEAD, "metric": "recall_subset", **inside},
    }


def write_submissions(folder: Path, rankings: Rankings) -> list[Path]:
    """Write the files of :func:`submission_files` to ``folder``, and return their paths.

    Raises :class:`DataError` as that function does.
    """
    files = submission_files(rankings)
    for file, values in files.items():
        # Without indentation, because CIRR's server accepts at most 5 MB.
        write_text(folder / file, json.dumps(values) + "\n")
    return [folder / file for file in files]


@dataclass(frozen=True)
class _Form:
    """What an evaluation server accepts as a file."""

    head: Mapping[str, str]
    """Entries that identify the file: key -> value."""
    most: int
    """Number of answers to each question."""
    candidates: Callable[[Questions], Callable[[Question], set[Any]]]
    """Function of all questions that returns a function: question -> the images that may be its answers."""


def _others(questions: Questions) -> Callable[[Question], set[Any]]:
    gallery = set(questions.image_ids)
    return lambda question: gallery - {questions.image_ids[question.reference]}


def _subset(questions: Questions) -> Callable[[Question], set[Any]]:
    return lambda question: {questions.image_ids[image] for image in question.subset}


def _numbers(questions: Questions) -> Callable[[Question], set[Any]]:
    gallery = {int(image) for image in questions.image_ids}
    return lambda question: gallery


_FORMS: Mapping[str, _Form] = {
    "cirr_test1_recall.json": _Form({**CIRR_HEAD, "metric": "recall"}, KEPT, _others),
    "cirr_test1_recall_subset.json": _Form({**CIRR_HEAD, "metric": "recall_subset"}, SUBSET_KEPT, _subset),
    "circo_test.json": _Form({}, KEPT, _numbers),
}


def validate(paths: Sequence[Path], questions: Questions) -> dict[str, dict[str, int]]:
    """Read submission files and check them.

    Returns file name -> numbers of ``questions``, of ``answers`` to a question (the fewest), and of
    ``bytes``. Checked are: every question and no other has answers, of the right number, without repetitions;
    all are candidates (in CIRR's second file: of the image set), without a masked reference; CIRR's
    ``version`` and ``metric``; and the size. Raises :class:`DataError` for the first fault, and for a file
    name that no server has.
    """
    for path in paths:
        if path.name not in _FORMS:
            raise DataError(f"no evaluation server takes {path}: its name must be one of {', '.join(_FORMS)}")
    return {path.name: _checked(path, questions, _FORMS[path.name]) for path in paths}


def _checked(path: Path, questions: Questions, form: _Form) -> dict[str, int]:
    values = read_json(path, "a submission")
    for key, wanted in form.head.items():
        if values.pop(key, None) != wanted:
            raise DataError(f"{path}: {key!r} should be {wanted!r}: write the file again")
    odd = sorted(set(values) ^ {question.pair_id for question in questions.questions})
    if odd:
        raise DataError(
            f"{path}: {len(odd)} questions are missing or too many ({', '.join(odd[:3])}): write the file "
            "again"
        )
    candidates, fewest = form.candidates(questions), form.most
    for question in questions.questions:
        answers, known = values[question.pair_id], candidates(question)
        fewest = min(fewest, count := min(form.most, len(known)))
        if len(answers) != count or len(set(answers)) != count:
            raise DataError(
                f"{path}: question {question.pair_id} needs {count} different answers: write the file again"
            )
        strange = next((answer for answer in answers if answer not in known), None)
        if strange is not None:
            raise DataError(
                f"{path}: question {question.pair_id} names {strange!r}, which is no candidate: write the "
                "file again"
            )
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(
            f"{path} has {size:,} bytes, but the server takes at most {LARGEST:,}: write the file again"
        )
    return {"questions": len(values), "answers": fewest, "bytes": size}
