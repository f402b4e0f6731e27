"""Commands that measure: ``evaluate``, ``protocol``, ``reproduce`` and ``figures``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from dqecir.cli.arguments import Model, output
from dqecir.errors import DataError
from dqecir.io.progress import console

Split = Annotated[str, typer.Option(help="The split to measure on: train, dev, val or test.")]
DataSetFolder = Annotated[Path, typer.Option("--data", help="The published data set's folder.")]
Pictures = Annotated[
    Path | None, typer.Option("--images", help="The folder of its pictures. Default: that of the data set.")
]
Missing = Annotated[
    Literal["refuse", "skip"],
    typer.Option(help="For missing images: refuse, or skip the questions that need them."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="A file to write the metrics to. Default: none.")
]


def evaluate_command(
    data: Annotated[Path, typer.Option("--data", help="A catalogue, or a folder with triplets.jsonl.")],
    split: Split = "val",
    model: Model = None,
    json_out: JsonFile = None,
    gallery_column: Annotated[
        str | None,
        typer.Option(
            help="Make a gallery for each value of this column, as FashionIQ does. Default: one gallery."
        ),
    ] = None,
    per_reference: Annotated[int, typer.Option(min=1, help="Number of questions about each image.")] = 2,
    drawing: Annotated[
        Literal["balanced", "natural"],
        typer.Option(help="Draw rare values as often as others (balanced), or as they occur (natural)."),
    ] = "balanced",
    seed: Annotated[int, typer.Option(help="The random seed of the questions.")] = 0,
) -> None:
    """Measure a model on a catalogue, and compare it with image only, text only, their sum, and the oracles,
    which know the true attributes.
    """
    from dqecir.evaluation.runs import evaluate_on_catalogue
    from dqecir.evaluation.table import as_table, beyond_recall
    from dqecir.io.files import write_json

    rows, facts = evaluate_on_catalogue(
        data,
        split,
        model,
        gallery_column=gallery_column,
        per_reference=per_reference,
        drawing=drawing,
        seed=seed,
    )
    output.print(as_table(f"{data.name}, {split}: {facts['queries']} questions, percent", rows))
    output.print(beyond_recall(rows))
    if json_out is not None:
        write_json(json_out, {"facts": facts, "rows": rows})


def figures(
    model: Annotated[list[str], typer.Option("--model", help="A model as NAME=FOLDER. Repeatable.")],
    data: Annotated[Path, typer.Option("--data", help="A catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write pictures to.")],
    split: Split = "val",
    recipe: Annotated[
        Path | None,
        typer.Option(help="A training recipe whose mid-zone to plot. Default: the published bounds."),
    ] = None,
    questions: Annotated[
        int, typer.Option(min=2, help="Number of questions that the figures choose from.")
    ] = 400,
    seed: Annotated[int, typer.Option(help="The random seed of the questions.")] = 0,
) -> None:
    """Plot the mid-zone (of hard negatives) and attribute weights, and show results of several models."""
    from dqecir.experiments.figures import draw_figures, models_named
    from dqecir.training.recipe import read_recipe

    zone = read_recipe(recipe).negatives if recipe is not None else None
    models = models_named(model)
    for path in draw_figures(models, data, out, split=split, questions=questions, zone=zone, seed=seed):
        output.print(str(path))


def protocol_command(
    name: Annotated[str, typer.Argument(help="A protocol: docs/protocols.md lists them.")],
    data: DataSetFolder,
    split: Annotated[str, typer.Option(help="The split to measure on.")] = "val",
    images: Pictures = None,
    missing: Missing = "refuse",
    model: Model = None,
    json_out: JsonFile = None,
    submit_to: Annotated[
        Path | None,
        typer.Option(
            "--submit",
            help="A folder to write a test split's submission to instead of measuring. Default: none.",
        ),
    ] = None,
) -> None:
    """Measure a model on a published benchmark under a named protocol, or write a submission."""
    from dqecir.evaluation.runs import evaluate_on_protocol, submit
    from dqecir.io.files import write_json

    if submit_to is not None:
        if json_out is not None or missing != "refuse":
            raise DataError(
                "a submission needs all images and has no metrics: leave out --missing and --json"
            )
        for path in submit(data, name, split, model, submit_to, images=images):
            output.print(str(path))
        return
    metrics, facts = evaluate_on_protocol(data, name, split, model, images=images, missing=missing)
    for metric, value in metrics.items():
        output.print(f"{escape(metric)}: {value:.2f}")
    if note := facts.get("note"):
        output.print(escape(note))
    if json_out is not None:
        write_json(json_out, {"facts": facts, "metrics": metrics})


def reproduce_command(
    data_set: Annotated[
        str | None, typer.Argument(help="fashioniq, cirr, circo or hp-fashioniq; required without --list.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The published data set's folder; with --list, a folder of such folders."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Untrained weights: a folder, file or hub name. Required without --list."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write report, run and tokens to. Required without --list."),
    ] = None,
    list_benchmarks: Annotated[
        bool,
        typer.Option(
            "--list", help="List each benchmark's needed files, present files, published numbers and checks."
        ),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="A training recipe. Default: DQE-CIR's of recipes/reproduce.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="The protocol, such as fashioniq-val. Default: the data set's plain protocol."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="A run to measure instead of training. Default: none."),
    ] = None,
    missing: Missing = "refuse",
    images: Pictures = None,
    tokens: Annotated[
        Path | None,
        typer.Option(help="The folder of image tokens, which several runs may share. Default: OUT/tokens."),
    ] = None,
) -> None:
    """Train on a published data set, measure under a named protocol, and compare with published numbers."""
    from dqecir.experiments.reproduce.benchmark_list import listing

    if list_benchmarks:
        for line in listing(data):
            output.print(escape(line))
        return
    if data_set is None or data is None or weights is None or out is None:
        needed = {"DATA_SET": data_set, "--data": data, "--weights": weights, "--out": out}
        missing_one = next(name for name, value in needed.items() if value is None)
        raise DataError(
            f"{missing_one} is missing: write dqecir reproduce DATA_SET --data … --weights … --out …"
        )
    from dqecir.experiments.reproduce.request import Request
    from dqecir.experiments.reproduce.retrieval import reproduce

    report = reproduce(Request(data_set, data, weights, out, recipe, protocol, run, missing, images, tokens))
    if report is not None:
        plain = Console(soft_wrap=True)
        for line in report.lines():
            plain.print(escape(line))
        console.print(f"the report is {out / 'report.md'}")
