"""Options that several commands have, and the console for results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dqecir.errors import DataError, about_warnings
from dqecir.io.progress import console

if TYPE_CHECKING:
    from dqecir.data.picture_files import Refusal

# Print ids unchanged: ":smile:" is no emoji.
output = Console(soft_wrap=True, emoji=False)

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that end a line, control a terminal, or change the direction of writing."""


def shown(text: object) -> str:
    r"""Return an id, a path or a value for :data:`output`: rich's markup and unprintable characters escaped.

    >>> shown("new\nline.jpg")
    'new\\nline.jpg'
    """
    return escape(_UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], str(text)))


def print_left_out(refusals: Sequence[Refusal], warnings: Sequence[str] = (), folder: Path = Path()) -> None:
    """Print which files were left out and why, and how many ``warnings`` the table of ``folder`` has."""
    for refusal in refusals:
        output.print(f"[yellow]left out[/] {shown(refusal.path)}: {escape(refusal.reason)}")
    if warnings:
        console.print(escape(about_warnings(warnings, folder)))


Out = Annotated[Path, typer.Option("--out", help="The folder to write.")]
IndexFolder = Annotated[Path, typer.Option("--index", help="An index folder.")]
SheetName = Annotated[
    str | None,
    typer.Option("--sheet-name", help="The sheet of a workbook (.xlsx). Default: the first."),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="A published encoder: a hub name (OWNER/NAME@REVISION) or a folder. Default: none."
    ),
]
Model = Annotated[Path | None, typer.Option("--model", help="A model folder. Default: the shipped model.")]

Reranker = Annotated[
    str | None,
    typer.Option(
        "--reranker",
        help=(
            "The reranker, which scores the first candidates again: attribute-heads, or the hub name or "
            "folder of a cross encoder of sentence-transformers. Default: none."
        ),
    ),
]

Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="auto, cpu, cuda or mps. auto: DQECIR_DEVICE, else a GPU if there is one.",
    ),
]


def start_of(model: Path | None, encoder: str | None) -> Path | str | None:
    """Return the model or encoder to start from; None if neither is given.

    Raises :class:`DataError` if both are given.
    """
    if model is not None and encoder is not None:
        raise DataError("give --model or --encoder, not both: a model folder contains its encoder")
    return encoder if model is None else model
