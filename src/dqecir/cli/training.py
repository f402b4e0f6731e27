"""Commands that train: ``pretrain``, ``train``, ``compare``; and ``convert``, for published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dqecir.cli.arguments import Encoder, Model, Out, output, start_of
from dqecir.io.progress import console


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A pretraining recipe (YAML).")],
    data: Annotated[list[Path], typer.Option("--data", help="A catalogue; repeatable.")],
    out: Out,
    split: Annotated[
        str, typer.Option(help="The images to train on: train, or train_all, which includes dev.")
    ] = "train",
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="FashionIQ caption files whose words the tokenizer also learns. Default: none."),
    ] = None,
) -> None:
    """Train a small BLIP-2 from scratch on catalogues, for machines without published weights."""
    from dqecir.data.catalogue import read_catalogue
    from dqecir.data.fashioniq import read_captions
    from dqecir.training.pretraining import Pretrainer
    from dqecir.training.recipe import read_pretraining_recipe

    settings = read_pretraining_recipe(recipe)
    catalogues = [read_catalogue(folder) for folder in data]
    captions = [caption for path in texts or [] for caption in read_captions(path)]
    work = out.with_name(f".{out.name}.work")
    model = Pretrainer(settings, catalogues, split, work, captions).run()
    model.save_pretrained(out)
    console.print(f"the model is in {out}; the checkpoints of its training are in {work}")


def train(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML).")],
    data: Annotated[
        list[Path],
        typer.Option("--data", help="A catalogue or a folder with triplets.jsonl; repeatable."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The run folder, which gets the model folders best and last.")
    ],
    model: Model = None,
    encoder: Encoder = None,
) -> None:
    """Train a method on triplets of catalogues or of your own; resume a killed run."""
    from dqecir.training.build import trainer_for
    from dqecir.training.recipe import read_recipe

    metrics = trainer_for(read_recipe(recipe), data, start_of(model, encoder), out).fit()
    console.print(
        f"best and last are in {out}; on dev: "
        + ", ".join(f"{k} {v:.1f}" for k, v in metrics.items() if "/" not in k)
    )


def compare(
    recipe: Annotated[Path, typer.Argument(help="A comparison recipe (YAML).")],
    data: Annotated[
        Path, typer.Option("--data", help="The catalogue, or folder with triplets.jsonl, to train on.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder for results and unfinished work.")],
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", help="The catalogue to measure on (its val split). Default: that of --data."),
    ] = None,
    model: Model = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            help="A published encoder: a hub name (OWNER/NAME@REVISION), a folder, or dqecir-small. Given "
            "several times, every method is compared over every encoder that it fits. Default: none.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Number of parallel runs, one thread each. Default: the number of cores."),
    ] = None,
) -> None:
    """Train and measure several methods over several seeds at equal budgets; resume a stopped comparison."""
    from dqecir.evaluation.table import as_table, beyond_recall
    from dqecir.experiments.compare.encoder_axis import compare_encoders, page
    from dqecir.experiments.compare.results_page import budget_means
    from dqecir.experiments.compare.runner import compare as run_comparison

    names = encoder or []
    if len(names) > 1:
        start_of(model, names[0])
        found = compare_encoders(recipe, data, out, names, evaluation=evaluation, processes=processes)
        output.print(escape("\n".join(page(found))))
        return
    start = start_of(model, names[0] if names else None)
    result = run_comparison(recipe, data, out, evaluation=evaluation, model=start, processes=processes)
    for title, rows in budget_means(result).items():
        output.print(as_table(title, rows))
        output.print(beyond_recall(rows))
    console.print(f"tables, CSV, JSON and plots are in {out}")


def convert_command(
    source: Annotated[str, typer.Option("--from", help="hf or lavis for BLIP-2 itself, or a method (sprc).")],
    file: Annotated[
        Path,
        typer.Argument(help="The checkpoint: safetensors, or .pth of tensors; for hf a folder or hub name."),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    pretrained: Annotated[
        Path | None,
        typer.Option(
            help="BLIP-2's checkpoint (or tower file), for covr2 or a FILE without tower. Default: none."
        ),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="The folder or hub name of BERT's word pieces, for whole models.")
    ] = "bert-base-uncased",
) -> None:
    """Convert a checkpoint of a published repository to a model folder, with a report of every key."""
    from dqecir.model.conversion import convert

    report = convert(source, file, out, pretrained=pretrained, tokenizer=tokenizer)
    output.print(escape(str(report)))
    console.print(
        f"the model is in {out}; the use of each key of the checkpoint is listed in {out / 'conversion.json'}"
    )
