"""Commands that measure: ``evaluate``, ``protocol`` and ``figures``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from dqecir.cli.arguments import Model, output


class Drawing(StrEnum):
    """How changes are drawn: evenly over attributes and values, or as the catalogue has them."""

    balanced = "balanced"
    natural = "natural"


def evaluate_command(
    data: Annotated[Path, typer.Option("--data", help="A catalogue.")],
    split: Annotated[str, typer.Option(help="Split to ask: its images are references and gallery.")] = "val",
    model: Model = None,
    json_out: Annotated[Optional[Path], typer.Option("--json", help="Also write the metrics here.")] = None,  # noqa: UP045
    gallery_column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Give every value of this column a gallery of its own, as FashionIQ does."),
    ] = None,
    per_reference: Annotated[int, typer.Option(min=1, help="Questions asked of each image.")] = 2,
    drawing: Annotated[Drawing, typer.Option(help="How the changes are drawn.")] = Drawing.balanced,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
) -> None:
    """Measure a model on a catalogue, beside image only, text only, their sum, and the oracles."""
    from dqecir.evaluation.runs import evaluate_on_catalogue
    from dqecir.evaluation.table import as_table
    from dqecir.io.files import write_json

    rows, facts = evaluate_on_catalogue(
        data,
        split,
        model,
        gallery_column=gallery_column,
        per_reference=per_reference,
        drawing=drawing.value,
        seed=seed,
    )
    output.print(as_table(f"{data.name}, {split}: {facts['queries']} questions, percent", rows))
    if json_out is not None:
        write_json(json_out, {"facts": facts, "rows": rows})


def figures(
    model: Annotated[list[str], typer.Option("--model", help="A model as NAME=FOLDER; give several.")],
    data: Annotated[Path, typer.Option("--data", help="A catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write pictures to.")],
    split: Annotated[str, typer.Option(help="Split to ask: its images are references and gallery.")] = "val",
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A training recipe whose mid-zone is drawn. Default: the published bounds."),
    ] = None,
    questions: Annotated[int, typer.Option(min=2, help="Questions that the figures draw from.")] = 400,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
) -> None:
    """Draw the mid-zone, attribute weights by question, and the answers of several models side by side."""
    from dqecir.experiments.figures import draw_figures, models_named
    from dqecir.training.recipe import read_recipe

    zone = read_recipe(recipe).negatives if recipe is not None else None
    models = models_named(model)
    for path in draw_figures(models, data, out, split=split, questions=questions, zone=zone, seed=seed):
        output.print(str(path))


def protocol_command(
    name: Annotated[str, typer.Argument(help="A protocol, such as fashioniq, cirr or circo.")],
    data: Annotated[Path, typer.Option("--data", help="The data set's folder, as it is published.")],
    split: Annotated[str, typer.Option(help="Split to ask.")] = "val",
    images: Annotated[Optional[Path], typer.Option(help="Where its pictures are, if not there.")] = None,  # noqa: UP045
    model: Model = None,
    json_out: Annotated[Optional[Path], typer.Option("--json", help="Also write the metrics here.")] = None,  # noqa: UP045
    submit_to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--submit", help="Write a test split's submission into this folder instead."),
    ] = None,
) -> None:
    """Measure a model on FashionIQ, CIRR or CIRCO under a named protocol, or write a submission."""
    from dqecir.evaluation.runs import evaluate_on_protocol, submit
    from dqecir.io.files import write_json

    if submit_to is not None:
        for path in submit(data, name, split, model, submit_to, images=images):
            output.print(str(path))
        return
    metrics, facts = evaluate_on_protocol(data, name, split, model, images=images)
    for metric, value in metrics.items():
        output.print(f"{escape(metric)}: {value:.2f}")
    if json_out is not None:
        write_json(json_out, {"facts": facts, "metrics": metrics})
