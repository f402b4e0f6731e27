"""Submissions for the servers of CIRR and CIRCO: read back, and held against what the servers take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqecir.data.annotations import Question, Questions, read_json
from dqecir.errors import DataError
from dqecir.evaluation.metrics import KEPT
from dqecir.evaluation.submission import CIRR_HEAD, SUBSET_KEPT

LARGEST = 5_000_000
"""Bytes that CIRR's server takes at most."""


@dataclass(frozen=True)
class _Form:
    """What a server takes: entries that say what the file is, the most answers, and who may be one."""

    head: Mapping[str, str]
    most: int
    candidates: Callable[[Questions], Callable[[Question], set[Any]]]


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
    """Read submission files back and check them; returns what each holds.

    Checked: an answer for every question and no other, their number, that none stands twice, that all are
    candidates (of the image set, for CIRR's second file), the reference not among them where it is masked,
    CIRR's ``version`` and ``metric``, and the size. Raises :class:`DataError` for the first fault.
    """
    return {path.name: _checked(path, questions, _FORMS[path.name]) for path in paths}


def _checked(path: Path, questions: Questions, form: _Form) -> dict[str, int]:
    values = read_json(path, "a submission")
    for key, wanted in form.head.items():
        if values.pop(key, None) != wanted:
            raise DataError(f"{path}: {key!r} should be {wanted!r}")
    odd = sorted(set(values) ^ {question.pair_id for question in questions.questions})
    if odd:
        raise DataError(f"{path}: {len(odd)} questions are missing or too many ({', '.join(odd[:3])})")
    candidates, fewest = form.candidates(questions), form.most
    for question in questions.questions:
        answers, known = values[question.pair_id], candidates(question)
        fewest = min(fewest, count := min(form.most, len(known)))
        if len(answers) != count or len(set(answers)) != count:
            raise DataError(f"{path}: question {question.pair_id} needs {count} different answers")
        strange = next((answer for answer in answers if answer not in known), None)
        if strange is not None:
            raise DataError(f"{path}: question {question.pair_id} names {strange!r}, which is no candidate")
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{path} has {size:,} bytes, and the server takes {LARGEST:,} at most")
    return {"questions": len(values), "answers": fewest, "bytes": size}
