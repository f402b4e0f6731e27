"""Submissions for the servers of CIRR and CIRCO: written, read back, and held against what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqecir.data.annotations import Question, Questions, read_json
from dqecir.errors import DataError
from dqecir.evaluation.metrics import KEPT
from dqecir.evaluation.submission import CIRR_HEAD, SUBSET_KEPT

LARGEST = 5_000_000
"""Bytes that CIRR's server takes at most."""


def validate(paths: Sequence[Path], questions: Questions) -> dict[str, dict[str, int]]:
    """Read submission files back and check them; returns what each holds.

    Checked: an answer for every question and no other, their number, that none stands twice, that all are
    candidates (of the image set, for CIRR's second file), the reference not among them where it is masked,
    CIRR's ``version`` and ``metric``, and the size. Raises :class:`DataError` for the first fault.
    """
    return {path.name: _CHECKS[path.name](path, questions) for path in paths}


def _cirr(path: Path, questions: Questions) -> dict[str, int]:
    values = _head_taken(path, {**CIRR_HEAD, "metric": "recall"})
    gallery = set(questions.image_ids)
    return _answers(
        path, values, questions, KEPT, lambda question: gallery - {_reference(questions, question)}
    )


def _cirr_subset(path: Path, questions: Questions) -> dict[str, int]:
    values = _head_taken(path, {**CIRR_HEAD, "metric": "recall_subset"})
    return _answers(
        path,
        values,
        questions,
        SUBSET_KEPT,
        lambda question: {questions.image_ids[i] for i in question.subset},
    )


def _circo(path: Path, questions: Questions) -> dict[str, int]:
    gallery = {int(image) for image in questions.image_ids}
    return _answers(path, read_json(path, "a submission"), questions, KEPT, lambda question: gallery)


_CHECKS: Mapping[str, Callable[[Path, Questions], dict[str, int]]] = {
    "cirr_test1_recall.json": _cirr,
    "cirr_test1_recall_subset.json": _cirr_subset,
    "circo_test.json": _circo,
}


def _reference(questions: Questions, question: Question) -> str:
    return questions.image_ids[question.reference]


def _head_taken(path: Path, head: Mapping[str, str]) -> dict[str, Any]:
    """The answers without the entries that say what the file is."""
    values = read_json(path, "a submission")
    for key, wanted in head.items():
        if values.pop(key, None) != wanted:
            raise DataError(f"{path}: {key!r} should be {wanted!r}")
    return values


def _answers(
    path: Path,
    values: Mapping[str, Sequence[Any]],
    questions: Questions,
    most: int,
    candidates: Callable[[Question], set[Any]],
) -> dict[str, int]:
    _same_keys(path, values, (question.pair_id for question in questions.questions))
    fewest = most
    for question in questions.questions:
        answers, known = values[question.pair_id], candidates(question)
        wanted = min(most, len(known))
        if len(answers) != wanted or len(set(answers)) != wanted:
            raise DataError(f"{path}: question {question.pair_id} needs {wanted} different answers")
        strange = [answer for answer in answers if answer not in known]
        if strange:
            raise DataError(
                f"{path}: question {question.pair_id} names {strange[0]!r}, which is no candidate"
            )
        fewest = min(fewest, wanted)
    size = path.stat().st_size
    if size > LARGEST:
        raise DataError(f"{path} has {size:,} bytes, and the server takes {LARGEST:,} at most")
    return {"questions": len(values), "answers": fewest, "bytes": size}


def _same_keys(path: Path, values: Mapping[str, Any], wanted: Iterable[str]) -> None:
    odd = sorted(set(values) ^ set(wanted))
    if odd:
        raise DataError(f"{path}: {len(odd)} questions are missing or too many ({', '.join(odd[:3])})")
