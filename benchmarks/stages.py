"""Measure the CPU seconds of each stage of the shipped model on one core.

    python -m benchmarks.stages --data PHOTOS --data GARMENTS_INDEPENDENT --work WORK

Each stage runs for a few and for more steps; the difference gives the time of a step, the rest is the time
before the first step (reading pictures, encoding tokens). The total of the recipe is extrapolated from both,
and marked as such. Prints one table and writes WORK/stages.json for ``benchmarks/write_results.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import torch
from rich.table import Table

from dqecir.data.catalogue import read_catalogue
from dqecir.io.files import write_json
from dqecir.io.progress import console
from dqecir.training.loop import bf16_pays
from dqecir.training.pretraining import Pretrainer
from dqecir.training.recipe import PretrainingRecipe, read_pretraining_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "pretrain-small.yaml"
FEW, MORE = 20, 80


def shortened(recipe: PretrainingRecipe, steps: int) -> PretrainingRecipe:
    stages = {
        name: getattr(recipe, name).model_copy(update={"steps": steps})
        for name in ("classification", "contrast")
    }
    return recipe.model_copy(update=stages)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = read_pretraining_recipe(RECIPE)
    catalogues = [read_catalogue(folder) for folder in options.data]
    seconds = {}
    for steps in (FEW, MORE):
        with tempfile.TemporaryDirectory() as work:
            pretrainer = Pretrainer(shortened(recipe, steps), catalogues, "train", Path(work), quiet=True)
            pretrainer.run()
            seconds[steps] = pretrainer.seconds
    stages = {}
    table = Table("stage", "CPU-s a step", "before the first", "steps", "CPU-s in all, extrapolated")
    for name in ("classification", "contrast"):
        step = (seconds[MORE][name] - seconds[FEW][name]) / (MORE - FEW)
        before = seconds[FEW][name] - FEW * step
        steps = getattr(recipe, name).steps
        stages[name] = {"step": step, "before": before, "steps": steps, "total": before + steps * step}
        table.add_row(name, f"{step:.3f}", f"{before:.0f}", str(steps), f"{stages[name]['total']:.0f}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    precision = "bf16" if bf16_pays(torch.device("cpu")) else "fp32"
    result = {"machine": machine, "precision": precision, "measured_steps": [FEW, MORE], "stages": stages}
    write_json(options.work / "stages.json", result)
    console.print(table)
    print(json.dumps({"benchmark": "stages", **result}))


if __name__ == "__main__":
    main()
