"""``dqecir catalogue fit``: its arguments, and the table it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def fit_command(
    folder: Annotated[Path, typer.Argument(help="The catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="Where report, model and index are written.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="A model folder; the shipped model unless named.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="How to train; as recipes/fit.yaml does unless named.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws splits, questions and examples.")] = 0,
) -> None:
    """Check a catalogue, train on it, measure, index it and write a report; a stopped one goes on."""
    from dqecir.evaluation.table import as_table
    from dqecir.fitting.steps import fit_catalogue

    rows = fit_catalogue(folder, out, model, recipe, seed)
    Console(soft_wrap=True).print(as_table(f"{folder.name}, percent", rows))
