"""``dqecir edit``: a picture changed as a text says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dqecir.cli.arguments import output


def edit(
    image: Annotated[Path, typer.Argument(help="The picture to edit.")],
    text: Annotated[str, typer.Option("--text", help="What should change.")],
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="A folder of a diffusers pipeline.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write (PNG).")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another edit.")] = 0,
) -> None:
    """Edit a picture with an instruction-following diffusion pipeline, such as InstructPix2Pix."""
    from dqecir.data.images import load_image
    from dqecir.io.files import write_bytes
    from dqecir.io.plots import encoded
    from dqecir.search.editing import Editor, EditSettings

    edited = Editor(checkpoint, EditSettings(seed=seed)).edit(load_image(image), text)
    write_bytes(out, encoded(edited, "PNG"))
    output.print(f"the edit is {escape(str(out))}, {edited.width} x {edited.height} pixels")
