"""``dqecir read``: what modification texts ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dqecir.cli.arguments import output


def read(
    texts: Annotated[Path, typer.Argument(metavar="IN", help="A file of JSON lines with id and text.")],
    out: Annotated[Path, typer.Option("--out", help="The file of JSON lines to write.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Read the columns of this model folder.")
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="Read the columns of this index folder.")
    ] = None,
) -> None:
    """Write what each text asks for, and which of its words are unread."""
    from dqecir.search.text_reading import read_texts

    count = read_texts(texts, out, model, index)
    output.print(f"{count} texts read, written to {escape(str(out))}")
