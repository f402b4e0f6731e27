"""Commands for texts and pictures without an index to search: ``read``, ``describe`` and ``edit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from dqecir.cli.arguments import Model, output, print_left_out
from dqecir.errors import counted


def read(
    texts: Annotated[Path, typer.Argument(metavar="IN", help="A file of JSON lines with id and text.")],
    out: Annotated[Path, typer.Option("--out", help="The file of JSON lines to write.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="A model folder: read in its columns. Default: the reader's own columns."
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index", help="An index folder: read in its columns. Default: the reader's own columns."
        ),
    ] = None,
) -> None:
    """Write the requests of each text, and its unread words."""
    from dqecir.search.text_reading import read_texts

    count = read_texts(texts, out, model, index)
    output.print(f"{counted(count, 'text')} read, written to {escape(str(out))}")


def describe(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Folders with pictures, or picture files.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The file of JSON lines to write.")],
    model: Model = None,
    columns: Annotated[
        Literal["photos", "products"] | None,
        typer.Option(
            "--columns",
            help="The set of columns to write. Default: photos, or all if the model lacks those.",
        ),
    ] = None,
) -> None:
    """Describe each picture: the value of every attribute, and its probability."""
    from dqecir.model.describer import Describer
    from dqecir.search.describing import describe_pictures

    count, left_out = describe_pictures(pictures, Describer.from_pretrained(model), out, columns)
    print_left_out(left_out)
    output.print(f"{counted(count, 'picture')} described, written to {escape(str(out))}")


def edit(
    image: Annotated[Path, typer.Argument(help="The picture to edit.")],
    text: Annotated[str, typer.Option("--text", help="What should change.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="The folder of a diffusers pipeline.")],
    out: Annotated[Path, typer.Option("--out", help="The picture file (PNG) to write.")],
    seed: Annotated[int, typer.Option(min=0, help="The random seed of the edit.")] = 0,
) -> None:
    """Edit a picture with an instruction-following diffusion pipeline, such as InstructPix2Pix."""
    from dqecir.data.images import load_image
    from dqecir.io.files import write_bytes
    from dqecir.io.plots import encoded
    from dqecir.search.editing import Editor, EditSettings

    edited = Editor(checkpoint, EditSettings(seed=seed)).edit(load_image(image), text)
    write_bytes(out, encoded(edited, "PNG"))
    output.print(f"the edit is {escape(str(out))}, {edited.width} x {edited.height} pixels")
