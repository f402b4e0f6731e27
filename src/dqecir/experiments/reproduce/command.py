"""The command ``dqecir reproduce``; the rest of the package is imported when it runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.markup import escape

from dqecir.io.progress import console


class Missing(StrEnum):
    """What becomes of missing images."""

    refuse = "refuse"
    skip = "skip"


def reproduce_command(
    data_set: Annotated[str, typer.Argument(help="fashioniq, cirr, circo or hp-fashioniq.")],
    data: Annotated[Path, typer.Option("--data", help="The data set's folder, as it is published.")],
    weights: Annotated[str, typer.Option("--weights", help="Untrained weights: a folder, file or hub name.")],
    out: Annotated[Path, typer.Option("--out", help="Where the report, the run and its tokens are written.")],
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A training recipe. Default: DQE-CIR's of recipes/reproduce."),
    ] = None,
    protocol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="How it is measured, such as fashioniq-val. Default: the plain protocol."),
    ] = None,
    run: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--run", help="Measure this run, of whatever data set, instead of training one."),
    ] = None,
    missing: Annotated[
        Missing, typer.Option(help="Missing images: refuse, or leave out what is judged by them.")
    ] = Missing.refuse,
    images: Annotated[Optional[Path], typer.Option(help="Where its pictures are, if not there.")] = None,  # noqa: UP045
    tokens: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Where image tokens are kept, for runs that share them. Default: OUT/tokens."),
    ] = None,
) -> None:
    """Train on a published data set, measure under a named protocol, and compare with published numbers."""
    from dqecir.experiments.reproduce.published_experiments import reproduce
    from dqecir.experiments.reproduce.request import Request

    report = reproduce(
        Request(data_set, data, weights, out, recipe, protocol, run, missing.value, images, tokens)
    )
    if report is not None:
        output = Console(soft_wrap=True)
        for line in report.lines():
            output.print(escape(line))
        console.print(f"the report is {out / 'report.md'}")
