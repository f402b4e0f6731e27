"""``dqecir serve``: the service and its page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dqecir.cli.arguments import Device, IndexFolder, Model, Reranker, output

if TYPE_CHECKING:
    from dqecir.service.configuration import Beside


def serve(
    index: IndexFolder,
    model: Model = None,
    device: Device = "auto",
    host: Annotated[
        str, typer.Option(help="The address to listen on. Default: 127.0.0.1, this machine only.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free port.")] = 8000,
    root_path: Annotated[
        str,
        typer.Option("--root-path", help="The path under which a proxy shows the service. Default: none."),
    ] = "",
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=INDEX@MODEL",
            help="A second index of the same items and its model, for comparison. Repeatable.",
        ),
    ] = None,
    reranker: Reranker = None,
    keys: Annotated[
        Path | None, typer.Option(help="A file of keys: lines read:KEY, write:KEY and embed:KEY.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="An origin whose pages may read from the service, such as https://shop.example; repeatable."
        ),
    ] = None,
    uploads: Annotated[
        str | None,
        typer.Option(
            help="The folder for pictures of new items, or an address such as s3://bucket/pictures. Default: "
            "INDEX-uploads."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Folder of a diffusers pipeline that edits pictures. Default: no edits."),
    ] = None,
    expert: Annotated[
        bool, typer.Option("--expert", help="Show scores, times, ids and filter expressions on the page.")
    ] = False,
    link_target: Annotated[
        str,
        typer.Option(help="Where the page opens links to products: _blank (a new tab), _self or _top."),
    ] = "_blank",
) -> None:
    """Serve an index: the page on which people search, and the routes under /v1."""
    from dqecir.service.configuration import ServiceSettings
    from dqecir.service.running import run
    from dqecir.settings import parse_settings

    settings = parse_settings(
        {
            "index": index,
            "model": model,
            "device": device,
            "host": host,
            "port": port,
            "root_path": root_path,
            "also": tuple(_beside(text) for text in also or ()),
            "reranker": reranker,
            "keys": keys,
            "origins": tuple(allow_origin or ()),
            "uploads": uploads,
            "checkpoint": checkpoint,
            "expert": expert,
            "link_target": link_target,
        },
        ServiceSettings,
        "dqecir serve",
    )
    run(settings, lambda address: output.print(f"the page is at {address}"))


def _beside(text: str) -> Beside:
    from dqecir.service.configuration import Beside
    from dqecir.settings import parse_settings

    parts = re.fullmatch(r"([^=]+)=([^@]+)(?:@(.+))?", text)
    if parts is None:
        raise typer.BadParameter(f"write --also as NAME=INDEX@MODEL, not {text!r}")
    name, index, model = parts.groups()
    return parse_settings({"name": name, "index": index, "model": model}, Beside, "--also")
