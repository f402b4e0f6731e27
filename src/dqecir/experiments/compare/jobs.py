"""The jobs of a comparison: count operations, search learning rates, train and measure.

Each job writes one JSON file. A job whose file exists is not repeated, so an interrupted comparison can be
resumed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dqecir.data.cells import values_of
from dqecir.errors import DataError
from dqecir.evaluation.diagnosis import diagnose
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import collect, summarise
from dqecir.evaluation.parsing_accuracy import parsing_accuracy
from dqecir.evaluation.predicted import Parse, predicted_scores
from dqecir.evaluation.weights import asking_of, recall_by_asked, with_permuted_weights
from dqecir.experiments.compare.context import ComparisonContext
from dqecir.experiments.compare.plan import Budget, slug
from dqecir.io.device import on_cpu
from dqecir.io.files import write_json
from dqecir.io.stopwatch import spent_name
from dqecir.language.parsing import Parser
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.methods.dqe import Dqe
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.training.loop import PRIMARY_METRIC
from dqecir.training.operations import training_cost
from dqecir.training.recipe import Recipe

Result = dict[str, Any]


def recalled(path: Path) -> Result | None:
    """Return the result that a finished job wrote to ``path``; None if there is no such file."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _kept(path: Path, work: Callable[[Path], Result]) -> Result:
    """Return the result in ``path`` if it exists.

    If not, run ``work`` in a temporary folder, store its result in ``path``, and return it.
    """
    result = recalled(path)
    if result is None:
        torch.set_num_threads(1)
        run = path.with_suffix("")
        result = work(run)
        write_json(path, result)
        shutil.rmtree(run, ignore_errors=True)
    return result


def count(context: ComparisonContext, title: str) -> Result:
    """Return the counts of each stage: operations of a step and of a refresh, and trained parameters.

    ``title`` is that of the contestant.
    """

    def counted(run: Path) -> Result:
        found = []
        for stage in context.stages[title]:
            recipe = stage.with_training(steps=context.recipe.steps, precision="fp32")
            found.append(asdict(training_cost(context.trainer(title, recipe, None, run, with_dev=False))))
        return {"title": title, "stages": found}

    return _kept(context.work / "counted" / f"{slug(title)}.json", counted)


def fixed_steps(counted: Result, budget: float | None, steps: int, refreshes: int) -> list[int]:
    """Return the number of steps of each stage: equal shares of ``steps``, or of what ``budget`` allows.

    ``counted`` is the result of :func:`count`. ``budget`` is in operations, from which ``refreshes`` of the
    negatives are paid first, then steps. None: share ``steps``.
    """
    costs = counted["stages"]
    if budget is None:
        return [max(1, steps // len(costs))] * len(costs)
    share = budget / len(costs)
    return [max(1, int((share - refreshes * cost["refresh"]) / cost["step"])) for cost in costs]


def operations(counted: Result, steps: list[int], refreshes: int) -> float:
    """Return the number of operations of all stages together, including those of the refreshes.

    ``counted`` is the result of :func:`count`; ``steps`` are those of each stage, ``refreshes`` the number
    of refreshes of the negatives in each.
    """
    stages = zip(steps, counted["stages"], strict=True)
    return float(sum(n * cost["step"] + refreshes * cost["refresh"] for n, cost in stages))


def search(context: ComparisonContext, title: str, factor: float, steps: list[int]) -> Result:
    """Train for a short time with ``factor`` times the recipe's learning rate, and measure on dev.

    The result has mAP@10 on dev as ``dev``. If the training fails, for example because the loss diverges,
    ``dev`` is -1, and no error is raised. ``title`` is that of the contestant; ``steps``: number of steps of
    each stage.
    """

    def searched(run: Path) -> Result:
        seed = context.recipe.search.seed
        try:
            _, seconds, done = _trained(context, title, factor, seed, steps, run, with_dev=True)
            found = {"dev": done["dev"][PRIMARY_METRIC], spent_name(on_cpu()): seconds}
        except DataError as error:
            found = {"dev": -1.0, spent_name(on_cpu()): 0.0, "failed": str(error)}
        return {"title": title, "factor": factor, "steps": steps, **found}

    return _kept(context.work / "search" / f"{slug(title)}-{factor:g}.json", searched)


def train_and_measure(
    context: ComparisonContext, title: str, budget: Budget, factor: float, seed: int, steps: list[int]
) -> Result:
    """Train a contestant with one seed, and measure it on the questions that all are measured on.

    ``factor`` multiplies the recipe's learning rate; ``steps``: number of steps of each stage. ``title`` is
    that of the contestant; ``budget`` names the budget.
    """

    def measured(run: Path) -> Result:
        model, seconds, done = _trained(context, title, factor, seed, steps, run, with_dev=False)
        return {
            "title": title,
            "budget": budget,
            "seed": seed,
            "factor": factor,
            "steps": steps,
            spent_name(on_cpu()): seconds,
            "false_negatives": done["false_negatives"],
            "metrics": measure(context, model),
        }

    return _kept(context.work / "runs" / f"{slug(title)}-{budget}-{seed}.json", measured)


def measure(context: ComparisonContext, model: ComposedModel) -> dict[str, float]:
    """Return a model's metrics: recall, precision over all right answers, faults, robustness, weights."""
    method, store, encoder = model.method, context.question_store, model.text_encoder
    asked = asking_of(context.questions)
    results = evaluate(method, store, encoder, context.questions)
    found = {
        **summarise(results),
        **recall_by_asked(results, asked),
        **diagnose(method, store, encoder, results, context.pairs, context.reworded),
    }
    if isinstance(method, Dqe) and method.options.attributes:
        permuted = with_permuted_weights(method.eval(), store, encoder, context.questions)
        values = {**summarise(permuted), **recall_by_asked(permuted, asked)}
        found |= {f"weights permuted/{key}": value for key, value in values.items()}
    return found


def exact_rows(context: ComparisonContext, model: ComposedModel, name: str) -> dict[str, dict[str, float]]:
    """Return row -> its metrics, for predicted attributes that are ranked by the exact log-probability.

    One row is for texts as the parser reads them, one for a perfect parse. ``name`` begins the names of the
    rows. Empty if the method of ``model`` is not ``predicted_attributes``.
    """
    method = model.method
    if not isinstance(method, PredictedAttributes):
        return {}
    questions, asked, rows = context.questions, asking_of(context.questions), {}
    parses: tuple[tuple[Parse, str], ...] = (("text", "exact"), ("perfect", "exact, perfect parse"))
    for parse, title in parses:
        results = collect(questions, predicted_scores(method, context.question_store, questions, parse))
        rows[f"{name}, {title}"] = {**summarise(results), **recall_by_asked(results, asked)}
    return rows


def parsing_of(context: ComparisonContext) -> dict[str, float]:
    """Return how often the parser is right on the questions, in percent; empty without true attributes."""
    if not context.questions.attributes:
        return {}
    values = values_of(context.questions.attributes)
    return parsing_accuracy(Parser(shipped_vocabularies(values), values), context.questions)


def _trained(
    context: ComparisonContext,
    title: str,
    factor: float,
    seed: int,
    steps: list[int],
    run: Path,
    with_dev: bool,
) -> tuple[ComposedModel, float, Result]:
    """Train all stages of a contestant; return the model, the seconds, and ``done.json`` of the last stage.

    ``factor`` multiplies the recipe's learning rate; ``steps`` are those of each stage; ``run`` gets a folder
    for each. ``with_dev``: measure on dev; ``done.json`` then has the metrics as ``dev``.
    """
    start: Path | None = None
    seconds, done = 0.0, dict[str, Any]()
    for number, stage in enumerate(context.stages[title]):
        folder = run / str(number)
        if not (folder / "done.json").exists():
            recipe = _fitted(stage, context, title, factor, seed, steps[number])
            last = number == len(steps) - 1
            context.trainer(title, recipe, start, folder, with_dev and last).fit()
        done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        seconds += done[spent_name(on_cpu())]
        start = folder / "last"
    return read_model(start), seconds, done


def _fitted(
    stage: Recipe, context: ComparisonContext, title: str, factor: float, seed: int, steps: int
) -> Recipe:
    """Return a stage's recipe with the given rate, seed and length, and refreshes at equal intervals.

    ``factor`` multiplies its learning rate; the number of refreshes is that of the contestant ``title``.
    """
    rate = stage.training.learning_rate * factor
    recipe = stage.with_training(steps=steps, seed=seed, learning_rate=rate)
    epoch = max(1, len(context.training.triplets) // recipe.training.batch_size)
    between = max(1, round(steps / (context.recipe.refreshes_of(title) + 1)))
    negatives = recipe.negatives.model_copy(update={"refresh_epochs": between / epoch})
    return recipe.model_copy(update={"negatives": negatives})
