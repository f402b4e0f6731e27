"""``dqecir encoders``: the supported encoders."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from dqecir.cli.arguments import output

_WIDEST = 200
"""Characters in a line of the list, so that each encoder stays on one line."""

encoders_app = typer.Typer(no_args_is_help=True, help="List the supported encoders and their licences.")


@encoders_app.command("list")
def encoders_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the encoders that --encoder is known to take, with kinds, licences, sizes and checks."""
    from rich.table import Table

    from dqecir.encoders.known_encoders import known_encoders

    known = known_encoders()
    if as_json:
        print(json.dumps(known.as_json(), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for head in ("encoder", "kind", "source", "licence", "parameters", "checked"):
        table.add_column(head, justify="right" if head == "parameters" else "left")
    for one in known.encoders:
        forbids = " [yellow](non-commercial)[/]" if one.non_commercial else ""
        millions = f"{one.parameters / 1e6:,.1f} M"
        table.add_row(one.name, one.kind, one.source, one.licence + forbids, millions, one.how_checked)
    Console(width=_WIDEST).print(table)
    output.print()
    for kind, said in known.kinds.items():
        output.print(f"{kind}: {said.what}. It provides {', '.join(said.provides).replace('_', ' ')}.")
