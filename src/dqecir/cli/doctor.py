"""``dqecir doctor``: whether this installation can search, and what to do if not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dqecir.cli.arguments import Model, output


def doctor(
    index: Annotated[
        Path | None, typer.Option("--index", help="An index folder to examine, too. Default: none.")
    ] = None,
    model: Model = None,
) -> None:
    """Examine versions, threads, device, memory, the model and an index, and say what to do."""
    from dqecir.search.health import examine

    fatal = False
    for finding in examine(index, model):
        sign = "[red]✗[/]" if finding.is_fatal else "[yellow]![/]" if finding.advice else "[green]✓[/]"
        output.print(f"{sign} {finding.name}: {escape(finding.value)}")
        if finding.advice:
            output.print(f"  → {escape(finding.advice)}")
        fatal = fatal or finding.is_fatal
    if fatal:
        raise typer.Exit(1)
