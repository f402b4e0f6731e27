"""``dqecir describe``: what pictures show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from dqecir.cli.arguments import Model, output


def describe(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Folders of pictures, or files of them.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file of JSON lines to write.")],
    model: Model = None,
    columns: Annotated[
        Literal["photos", "products"] | None,
        typer.Option(
            "--columns",
            help="Whose columns and spellings to write. Default: photos, or all of a model without those.",
        ),
    ] = None,
) -> None:
    """Write what each picture shows: the value of every attribute, and how probable it is."""
    from dqecir.model.composed_model import read_model
    from dqecir.search.describing import describe_pictures

    count, left_out = describe_pictures(pictures, read_model(model), out, columns)
    for refusal in left_out:
        output.print(f"[yellow]left out[/] {escape(str(refusal.path))}: {escape(refusal.reason)}")
    output.print(f"{count} pictures described, written to {escape(str(out))}")
