"""Run a comparison: choose learning rates, fix steps, train and measure contestants, write tables."""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from dqecir.encoders.checkpoint_files import located
from dqecir.evaluation.table import oracle_rows
from dqecir.experiments.compare.context import ComparisonContext
from dqecir.experiments.compare.jobs import (
    Result,
    count,
    exact_rows,
    fixed_steps,
    measure,
    operations,
    parsing_of,
    recalled,
    search,
    train_and_measure,
)
from dqecir.experiments.compare.plan import ComparisonRecipe, Contestant, read_comparison
from dqecir.experiments.compare.results_page import write_report
from dqecir.io.device import chosen_device, on_cpu
from dqecir.io.files import write_json
from dqecir.io.progress import console, track
from dqecir.io.run_folder import claim
from dqecir.io.stopwatch import spent_name
from dqecir.methods.method import method_named
from dqecir.model.compose import learn_images
from dqecir.model.composed_model import SHIPPED_MODEL
from dqecir.settings import Strict, parse_settings
from dqecir.training.loop import bf16_pays


def compare(
    recipe_file: Path,
    train: Path,
    out: Path,
    *,
    evaluation: Path | None = None,
    model: Path | str | None = None,
    processes: int | None = None,
) -> Result:
    """Run or resume the comparison ``recipe_file``; return the contents of ``OUT/results.json``.

    ``train`` is the catalogue to train on; ``evaluation`` the one whose val split is measured. Default:
    ``train``. ``model`` is the model that all contestants start from, as in :func:`read_model`. Default: the
    shipped model. ``processes`` is the number of parallel runs. Default: the number of cores. Raises
    :class:`DataError` if a recipe is wrong, or if ``out`` holds another comparison.
    """
    return run_comparison(
        read_comparison(recipe_file),
        recipe_file.resolve().parent,
        train,
        out,
        evaluation=evaluation,
        model=model,
        processes=processes,
    )


def run_comparison(
    recipe: ComparisonRecipe,
    recipes: Path,
    train: Path,
    out: Path,
    *,
    evaluation: Path | None = None,
    model: Path | str | None = None,
    processes: int | None = None,
) -> Result:
    """Run a comparison as :func:`compare`, from a recipe that is already read.

    ``recipes`` is the folder of the comparison's recipe. The other arguments are those of :func:`compare`.
    """
    folder = None if model in (None, SHIPPED_MODEL) else located(model)[1]
    places = recipes, train.resolve(), (evaluation or train).resolve(), folder
    context = ComparisonContext(recipe, *places, out.resolve())
    # Read all recipes now, so that every mistake is reported before anything is computed.
    methods = [(stage.method, stage.options) for own in context.stages.values() for stage in own]
    for row in recipe.baselines:
        parse_settings(row.options, method_named(row.method).options_type, f"the options of {row.name}")
    start = context.start()
    for method, options in (*methods, *((row.method, row.options) for row in recipe.baselines)):
        start.with_method(method, options)  # This raises if the method does not fit the model.
    for questions in ("training", "dev", "questions"):
        getattr(context, questions)  # Report a wrong catalogue before claiming the folder.
    claim_work(context)
    console.print(f"{recipe.name}: storing image tokens")
    for store in ("training_store", "dev_store", "question_store"):
        getattr(context, store)
    fixed = _baselines(context)
    titles = list(context.stages)
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes or os.cpu_count(), mp_context=spawning, initializer=leave_with_parent
    ) as pool:

        def run_all(what: str, work: Callable[..., Result], jobs: Iterable[tuple[Any, ...]]) -> list[Result]:
            futures = [pool.submit(work, context, *arguments) for arguments in jobs]
            for future in track(as_completed(futures), what, total=len(futures)):
                future.result()
            return [future.result() for future in futures]

        counted = {row["title"]: row for row in run_all("counting operations", count, [(t,) for t in titles])}
        factors = _searched(recipe, counted, run_all)
        steps = _steps(recipe, counted)
        jobs = [
            (title, budget, factors[title]["chosen"], seed, steps[title][budget])
            for seed in recipe.seeds
            for budget in recipe.budgets
            for title in titles
            if not _repeats(recipe, title, budget, steps)
        ]
        rows = run_all("training and measuring", train_and_measure, jobs)
    result = _collected(context, counted, factors, steps, rows, fixed)
    write_json(out / "results.json", result)
    write_report(result, out)
    return result


def leave_with_parent() -> None:
    """End this worker process as soon as the process that started it has ended.

    Otherwise it would go on next to the workers of a restarted comparison.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class ComparisonSettings(Strict):
    """The settings that the folder of a comparison stores; another comparison cannot use the folder.

    ``settings`` and ``contestants`` leave out defaults, so that a new setting of the package does not
    invalidate old results. ``seconds`` is stored because seconds of a CPU and of an accelerator cannot be
    added.
    """

    settings: dict[str, Any]
    model: str
    train: str
    evaluation: str
    seconds: str = spent_name(on_cpu=True)
    contestants: dict[str, Any]


def claim_work(context: ComparisonContext) -> None:
    """Store the settings of a comparison in its folder ``context.work``.

    Raises :class:`DataError` if the folder holds the results of another comparison. Between runs,
    contestants, baselines and seeds may be added or removed, but not changed.
    """
    own = {"contestants", "baselines", "seeds", "frozen"}
    claimed = ComparisonSettings(
        settings=context.recipe.model_dump(mode="json", exclude=own, exclude_defaults=True),
        model=context.start().fingerprint,
        train=str(context.train),
        evaluation=str(context.evaluation),
        seconds=spent_name(on_cpu()),
        contestants={one.title: _claimed(context, one) for one in context.recipe.contestants},
    )
    claim(context.work, "comparison.json", claimed, "comparison", joining="contestants")


def _claimed(context: ComparisonContext, contestant: Contestant) -> list[dict[str, Any]]:
    """Return the settings on which a contestant's results depend: its stages, and wrong labels, if any."""
    stages = [
        stage.model_dump(mode="json", exclude_defaults=True) for stage in context.stages[contestant.title]
    ]
    labels = contestant.model_dump(include={"shuffled_targets"}, exclude_defaults=True)
    return [*stages, labels] if labels else stages


def _baselines(context: ComparisonContext) -> dict[str, dict[str, float]]:
    """Return the rows that are not trained, baselines and oracles: name -> metric -> value."""
    path = context.work / "baselines.json"
    rows = recalled(path) or {}
    own: dict[str, dict[str, float]] = {}
    for row in context.recipe.baselines:
        if row.name not in rows:
            model = context.start().with_method(row.method, row.options).eval()
            if model.method.learns_gallery:
                learn_images(model.method, context.question_store)
            rows[row.name] = {row.name: measure(context, model), **exact_rows(context, model, row.name)}
            write_json(path, rows)
        own |= rows[row.name]
    return own | oracle_rows(context.questions)


def _searched(
    recipe: ComparisonRecipe,
    counted: dict[str, Result],
    run_all: Callable[[str, Callable[..., Result], Iterable[tuple[Any, ...]]], list[Result]],
) -> dict[str, Result]:
    """Return title of a contestant -> the learning rate that is best on dev, and the values of all.

    ``chosen`` is a factor of the recipe's rate, of equally good ones the nearest to 1; ``dev`` is factor ->
    mAP@10. ``run_all`` runs jobs in parallel.
    """
    length = max(2, round(recipe.steps * recipe.search.share))
    jobs = [
        (title, factor, fixed_steps(counted[title], None, length, 0))
        for factor in sorted(recipe.search.factors)
        for title in counted
    ]
    rows = run_all("searching learning rates", search, jobs)
    found = {}
    for title in counted:
        trials = {row["factor"]: row["dev"] for row in rows if row["title"] == title}
        best = max(trials, key=lambda factor: (trials[factor], -abs(math.log(factor)), -factor))
        seconds = sum(row[spent_name(on_cpu())] for row in rows if row["title"] == title)
        found[title] = {"chosen": best, "dev": trials, spent_name(on_cpu()): seconds}
    return found


def _steps(recipe: ComparisonRecipe, counted: dict[str, Result]) -> dict[str, dict[str, list[int]]]:
    """Return contestant -> budget -> number of steps of each stage; all are fixed before training."""
    refreshes = {title: recipe.refreshes_of(title) for title in counted}
    reference = counted[recipe.reference]
    own = fixed_steps(reference, None, recipe.steps, refreshes[recipe.reference])
    budget = operations(reference, own, refreshes[recipe.reference])
    return {
        title: {
            "steps": fixed_steps(cost, None, recipe.steps, refreshes[title]),
            "operations": fixed_steps(cost, budget, recipe.steps, refreshes[title]),
        }
        for title, cost in counted.items()
    }


def _repeats(
    recipe: ComparisonRecipe, title: str, budget: str, steps: dict[str, dict[str, list[int]]]
) -> bool:
    """Return whether a run at the budget ``operations`` would be the same as that at the budget ``steps``.

    It is for the reference, whose operations are the budget.
    """
    alike = steps[title]["operations"] == steps[title]["steps"]
    return budget == "operations" and "steps" in recipe.budgets and alike


def _collected(
    context: ComparisonContext,
    counted: dict[str, Result],
    factors: dict[str, Result],
    steps: dict[str, dict[str, list[int]]],
    rows: list[Result],
    fixed: dict[str, dict[str, float]],
) -> Result:
    recipe, questions = context.recipe, context.questions
    spent = spent_name(on_cpu())
    contestants = {}
    for title in counted:
        refreshes = recipe.refreshes_of(title)
        budgets = {}
        for budget in recipe.budgets:
            same = "steps" if _repeats(recipe, title, budget, steps) else budget
            runs = [row for row in rows if row["title"] == title and row["budget"] == same]
            budgets[budget] = {
                "steps": steps[title][budget],
                "operations": operations(counted[title], steps[title][budget], refreshes),
                "runs": [
                    {key: run[key] for key in ("seed", spent, "false_negatives", "metrics")} for run in runs
                ],
            }
        last = context.stages[title][-1]
        contestants[title] = {
            "method": last.method,
            "learning_rate": last.training.learning_rate * factors[title]["chosen"],
            "search": factors[title],
            "parameters": [cost["parameters"] for cost in counted[title]["stages"]],
            "step_operations": [cost["step"] for cost in counted[title]["stages"]],
            "refresh_operations": [cost["refresh"] for cost in counted[title]["stages"]],
            "budgets": budgets,
        }
    return {
        "name": recipe.name,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}{_accelerator()}",
        "precision": "bf16" if bf16_pays(chosen_device()) else "fp32",
        "model": context.start().fingerprint,
        "reference": recipe.reference,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "refreshes": recipe.refreshes,
        "seeds": list(recipe.seeds),
        "triplets": len(context.training.triplets),
        "training_images": len(context.training.image_ids),
        "questions": len(questions.triplets),
        "right_answers": sum(len(triplet.relevant) for triplet in questions.triplets)
        / len(questions.triplets),
        "confusable": len(context.pairs),
        "galleries": {name: len(gallery) for name, gallery in questions.galleries.items()},
        spent: {
            "search": sum(row[spent] for row in factors.values()),
            "training": sum(row[spent] for row in rows),
        },
        "parsing": parsing_of(context),
        "fixed": fixed,
        "contestants": contestants,
    }


def _accelerator() -> str:
    """Return the name of the accelerator as a suffix for the machine's name; empty on a CPU."""
    if on_cpu():
        return ""
    device = chosen_device()
    return f", {torch.cuda.get_device_name() if device.type == 'cuda' else device.type}"
