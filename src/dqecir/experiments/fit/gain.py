"""Measure the fitted model and the model before on pictures that were not trained on; choose the better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.evaluation.bootstrap import PairedGain, paired_gain
from dqecir.evaluation.evaluate import evaluate, query_scores
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect, summarise
from dqecir.evaluation.table import baselines
from dqecir.evaluation.weights import recall_by_asked
from dqecir.experiments.fit.fit_data import FitData
from dqecir.io.progress import track
from dqecir.language.numeric_constraints import ConstraintReader, NumericConstraint
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.comparatives import Comparatives, Intent, with_comparatives

FITTED, BEFORE = "the fitted model", "the model before"
"""Names of two rows in the table of a report."""


@dataclass(frozen=True)
class MeasuredFit:
    """The results of the fitted model and of the model before, on the same questions about val."""

    rows: dict[str, dict[str, float]]
    """Row -> metric -> percent: both models, predicted attributes, baselines. If the catalogue has numbers:
    also the chosen model with filters for compared numbers."""
    asked: Mapping[str, float]
    """R@10 and mAP@10 of the chosen model, in percent, for the questions that request each column."""
    gain: PairedGain
    """How much better the fitted model is than the model before."""
    chosen: ComposedModel
    """The better model; the model before if both are equal."""
    results: RetrievalResults
    """The results of the chosen model."""
    store: TokenStore
    """Image tokens of the benchmark's images."""


def measure(data: FitData, fitted: ComposedModel, before: ComposedModel) -> MeasuredFit:
    """Measure both models and baselines on questions about val, and choose the better model."""
    benchmark = data.measuring_questions(fitted, "val")
    store = data.store(benchmark.image_paths)
    models = {FITTED: fitted, BEFORE: before}
    names = [vocabulary.name for vocabulary in fitted.vocabularies]
    others = {
        "predicted attributes": fitted.with_method(PredictedAttributes.name, {"attributes": names}),
        **baselines(fitted),
    }
    same = [_ranking(model) for model in models.values()]
    models |= {name: model for name, model in others.items() if _ranking(model) not in same}
    found: dict[str, RetrievalResults] = {}
    for name, model in track(models.items(), "measuring", len(models), data.quiet):
        found[name] = evaluate(model.method, store, model.text_encoder, benchmark)
    rows = {name: summarise(results) for name, results in found.items()}
    gain = paired_gain(found[FITTED], found[BEFORE], data.seed)
    name = FITTED if gain.difference > 0 else BEFORE
    chosen, results = models[name], found[name]
    if data.plan.numbers:
        spoken, numbers = Comparatives(list(data.plan.numbers)), data.numbers("val")
        compared = with_comparatives(benchmark, numbers, spoken, 1.0, data.seed, answered=True)
        rows["numbers filtered"] = summarise(collect(compared, _filtered(chosen, store, compared, numbers)))
    asks = {
        column: np.array([column in triplet.asked for triplet in benchmark.triplets])
        for column in data.plan.columns
    }
    asked = recall_by_asked(results, {column: row for column, row in asks.items() if row.any()})
    return MeasuredFit(rows, asked, gain, chosen, results, store)


def _ranking(model: ComposedModel) -> tuple[str, Any, str]:
    """Return a key that two models share if they rank all questions equally."""
    return model.method.name, model.options, model.target_fingerprint


def _filtered(
    model: ComposedModel,
    store: TokenStore,
    benchmark: Benchmark,
    numbers: Mapping[str, NDArray[np.float64]],
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield scores as :func:`query_scores` does, for texts without their comparisons of numbers.

    Images that do not fulfil these comparisons get lower scores than all others. ``numbers``: column -> a
    number for each image.
    """

    reader = ConstraintReader(list(numbers))

    def parted(question: Any) -> tuple[str, tuple[NumericConstraint, ...]]:
        return reader.parted(model.method.text(question.captions))

    chunks = query_scores(model.method, store, model.text_encoder, benchmark, lambda q: parted(q)[0])
    for category, questions, scores in chunks:
        gallery = benchmark.galleries[category]
        behind = float(scores.max() - scores.min()) + 1
        scores = scores.copy()
        for row, number in enumerate(questions):
            triplet = benchmark.triplets[number]
            for bound in parted(triplet)[1]:
                intent = Intent(bound.column, bound.direction)
                admitted = intent.admits(numbers[bound.column], triplet.reference)[gallery]
                scores[row, ~admitted] -= behind
        yield category, questions, scores
