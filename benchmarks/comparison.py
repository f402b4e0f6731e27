"""Objectives of the same network at equal compute, on one catalogue, over several seeds.

    python benchmarks/comparison.py --name photos --train PHOTOS --eval PHOTOS --model MODEL --work WORK
    python benchmarks/comparison.py --name garments --train GARMENTS --eval GARMENTS_VAL \\
        --gallery-column garment --model MODEL --work WORK

Equal compute means counted operations, mining included: the budget is ``--reference-steps`` steps of
in-batch contrast, and the steps of every other objective are fixed by counting one of its steps and
one of its refreshes beforehand. Seconds are reported beside it. A run that was stopped is resumed.
Prints one table and writes WORK/NAME.json, which ``benchmarks/write_results.py`` turns into
docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from dqecir.data.catalogue import read_catalogue
from dqecir.data.composing import catalogue_benchmark
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import summarise
from dqecir.evaluation.table import as_table, baseline_rows, oracle_rows
from dqecir.files import write_json
from dqecir.model import ComposedModel
from dqecir.operations import training_cost
from dqecir.progress import console
from dqecir.recipe import Recipe, read_recipe
from dqecir.runs import store_of, trainer_for
from dqecir.training import bf16_pays, settings_for

RECIPES = Path(__file__).parent.parent / "recipes"
OBJECTIVES = {
    "in-batch contrast": "contrastive",
    "DQE-CIR as published": "dqe",
    "pair loss, random negatives": "pair-random",
    "pair loss, two steepest drops": "pair-drops",
    "DQE with attribute heads": "dqe-heads",
    "DQE with attribute heads, zone": "dqe-heads-zone",
}
REFERENCE = "in-batch contrast"


def benchmark_of(options: argparse.Namespace) -> Benchmark:
    return catalogue_benchmark(
        read_catalogue(options.eval),
        "val",
        seed=7,
        count=options.queries,
        wording="evaluation",
        gallery_column=options.gallery_column,
        name=options.name,
    )


def recipe_of(name: str, options: argparse.Namespace, **training: Any) -> Recipe:
    recipe = read_recipe(RECIPES / f"{OBJECTIVES[name]}.yaml")
    triplets = recipe.triplets.model_copy(
        update={"gallery_column": options.gallery_column, "count": options.triplets}
    )
    return settings_for(recipe.model_copy(update={"triplets": triplets}), **training)


def fixed_steps(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Steps of every objective within the budget, counted before anything is trained."""
    counted: dict[str, dict[str, float]] = {}
    budget = 0.0
    for name in OBJECTIVES:
        recipe = recipe_of(name, options, precision="fp32")
        trainer = trainer_for(
            recipe, [options.train], options.model, options.work / "count", tokens_of(options), True
        )
        cost = training_cost(trainer)
        if name == REFERENCE:
            budget = cost.total(options.reference_steps)
        steps = options.reference_steps if name == REFERENCE else cost.steps_within(budget)
        counted[name] = {
            "steps": steps,
            "operations": cost.total(steps),
            "step_operations": cost.step,
            "refresh_operations": cost.refresh,
            "epoch_steps": trainer.epoch_steps,
        }
    return counted


def tokens_of(options: argparse.Namespace) -> Path:
    return Path(options.work / f"tokens-{options.name}")


def one_run(name: str, seed: int, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one objective with one seed and measure it on the evaluation split."""
    torch.set_num_threads(1)
    run = options.work / options.name / f"{OBJECTIVES[name]}-{seed}"
    result = run / "result.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    recipe = recipe_of(name, options, steps=steps, seed=seed, evaluate_every=1e6)
    trainer = trainer_for(recipe, [options.train], options.model, run, tokens_of(options), True)
    trainer.fit()
    model = ComposedModel.from_pretrained(run / "last")
    benchmark = benchmark_of(options)
    store = store_of(model, benchmark, tokens_of(options) / "eval", quiet=True)
    metrics = summarise(evaluate(model.method, store, model.text_encoder, benchmark))
    row = {"name": name, "seed": seed, "steps": steps, "cpu_seconds": trainer.seconds, "metrics": metrics}
    row["dev"] = json.loads((run / "done.json").read_text())["dev"]
    row["mining"] = [
        json.loads(line) for line in (run / "log.jsonl").read_text().splitlines() if '"mining"' in line
    ]
    write_json(result, row)
    shutil.rmtree(run / "best", ignore_errors=True)
    return row


def spread(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of every metric over seeds."""
    return {
        key: {
            "mean": statistics.mean(row["metrics"][key] for row in rows),
            "sd": statistics.stdev(row["metrics"][key] for row in rows) if len(rows) > 1 else 0.0,
        }
        for key in rows[0]["metrics"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--gallery-column")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--triplets", type=int, default=9000)
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--reference-steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2)))
    options = parser.parse_args()

    model = ComposedModel.from_pretrained(options.model)
    benchmark = benchmark_of(options)
    store = store_of(model, benchmark, tokens_of(options) / "eval")
    fixed = {name.replace("_", " "): row for name, row in baseline_rows(model, store, benchmark).items()}
    fixed |= oracle_rows(benchmark)
    counted = fixed_steps(options)
    jobs = [(name, seed) for seed in range(options.seeds) for name in OBJECTIVES]
    with ProcessPoolExecutor(options.processes) as pool:
        futures = [pool.submit(one_run, n, s, int(counted[n]["steps"]), options) for n, s in jobs]
        rows = [future.result() for future in futures]
    trained = {name: [row for row in rows if row["name"] == name] for name in OBJECTIVES}
    result = {
        "name": options.name,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "precision": "bf16" if bf16_pays(torch.device("cpu")) else "fp32",
        "seeds": options.seeds,
        "triplets": options.triplets,
        "queries": len(benchmark.triplets),
        "galleries": {name: len(gallery) for name, gallery in benchmark.galleries.items()},
        "reference_steps": options.reference_steps,
        "pretraining": dict(model.notes or {}).get("cpu_seconds", {}),
        "fixed": fixed,
        "counted": counted,
        "trained": {
            name: {
                "spread": spread(some),
                "by_seed": [row["metrics"]["mAP@10"] for row in some],
                "dev_by_seed": [row["dev"].get("mAP@10") for row in some],
                "cpu_seconds": statistics.mean(row["cpu_seconds"] for row in some),
                "mining": some[0]["mining"],
            }
            for name, some in trained.items()
        },
    }
    write_json(options.work / f"{options.name}.json", result)
    means = {name: {k: v["mean"] for k, v in spread(some).items()} for name, some in trained.items()}
    console.print(as_table(f"{options.name}: mean of {options.seeds} seeds, percent", {**means, **fixed}))
    print(json.dumps({"benchmark": options.name, "machine": result["machine"], "rows": means}))


if __name__ == "__main__":
    main()
