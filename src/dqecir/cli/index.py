"""``dqecir index`` and ``dqecir search``: build, change and search an index."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from dqecir.cli.arguments import (
    Device,
    Encoder,
    IndexFolder,
    Model,
    Out,
    Reranker,
    SheetName,
    output,
    print_left_out,
    shown,
    start_of,
)
from dqecir.errors import DataError, UnknownItemError, counted
from dqecir.io.progress import console
from dqecir.io.starting import loading

if TYPE_CHECKING:
    from dqecir.search.retriever import BuildSummary

Tokens = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        help="A folder that stores image tokens, so that no picture is encoded twice. Default: none.",
    ),
]

index_app = typer.Typer(no_args_is_help=True, help="Build, change and examine indexes of images.")


@index_app.command("build")
def index_build(
    images: Annotated[Path, typer.Option("--images", help="A folder of pictures.")],
    out: Out,
    model: Model = None,
    encoder: Encoder = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="The method of an --encoder, without training: image_plus_text, product, basic and others "
            "of docs/encoders.md. Default: image_plus_text, or token_mean for an encoder of images.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine", help="exact, server or postgres. Default: that of the index in OUT, else exact."
        ),
    ] = None,
    tokens: Tokens = None,
    sheet_name: SheetName = None,
    device: Device = "auto",
) -> None:
    """Index a folder of pictures or a catalogue; pictures that cannot be used are left out and named."""
    from dqecir.search.retriever import ComposedRetriever

    if encoder is None:
        if method is not None:
            raise DataError("--method is for an --encoder: name one, or leave out --method")
        retriever = ComposedRetriever.from_pretrained(model, device)
    else:
        start_of(model, encoder)
        retriever = ComposedRetriever.from_encoder(encoder, method, device=device)
        console.print(f"encoder: {escape(str(retriever.model.backbone.origin))}")
    summary = retriever.build_index(images, out, engine=engine, tokens=tokens, sheet=sheet_name)
    _say_indexed(summary, images, f"indexed in {out}")


@index_app.command("add")
def index_add(
    index: IndexFolder,
    images: Annotated[Path, typer.Option("--images", help="A folder of pictures.")],
    model: Model = None,
    tokens: Tokens = None,
    device: Device = "auto",
) -> None:
    """Add a folder of pictures to an index; items of the same ids are replaced."""
    from dqecir.search.retriever import ComposedRetriever

    retriever = ComposedRetriever.of_index(index, model, device)
    _say_indexed(retriever.add_pictures(images, tokens=tokens), images, f"added to {index}")


def _say_indexed(summary: BuildSummary, folder: Path, what: str) -> None:
    print_left_out(summary.refusals, summary.warnings, folder)
    output.print(f"{summary.indexed} images {escape(what)}, {len(summary.refusals)} left out")


@index_app.command("delete")
def index_delete(
    index: IndexFolder, ids: Annotated[list[str], typer.Argument(help="Ids of items or products.")]
) -> None:
    """Delete items of an index by their ids, or products by theirs, with all their pictures."""
    from dqecir.index.engines import open_index
    from dqecir.search.product_search import items_named

    found = open_index(index)
    named = [*dict.fromkeys(items_named(found, ids))]
    known = found.payloads(named)
    unknown = [name for name in named if name not in known]
    count = found.delete(list(known))
    names = f": {shown(', '.join(unknown))}" if unknown else ""
    output.print(f"{counted(count, 'item')} deleted, {len(unknown)} not found{names}")


@index_app.command("move")
def index_move(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="An index folder, which is not changed.")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The folder of the new index.")],
    engine: Annotated[
        str, typer.Option("--engine", help="The engine of the new index: exact, server or postgres.")
    ],
) -> None:
    """Copy all items of an index into a new index of another engine; nothing is encoded again."""
    from dqecir.index.engines import move_index

    output.print(f"{counted(len(move_index(source, target, engine)), 'item')} in {escape(str(target))}")


@index_app.command("export")
def index_export(
    index: IndexFolder,
    out: Annotated[Path, typer.Option("--out", help="The Parquet file to write, such as items.parquet.")],
) -> None:
    """Write ids, vectors (float32) and payloads (JSON) to a Parquet file, for other databases."""
    from dqecir.index.engines import open_index
    from dqecir.index.parquet import export_parquet

    count = export_parquet(open_index(index), out)
    output.print(f"{counted(count, 'item')} in {escape(str(out))}")


@index_app.command("leftovers")
def index_leftovers(
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            help=(
                "An index folder, or one whose build was interrupted. Default: none, for the server of "
                "DQECIR_QDRANT_URL and the database of DQECIR_DATABASE_URL."
            ),
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove them. Default: only list them.")] = False,
) -> None:
    """List leftovers of killed builds: collections, tables of a database, and drafts beside an index."""
    from dqecir.index.engines import leftovers_of

    found = leftovers_of(index)
    for left in found:
        if remove:
            left.remove()
        output.print(f"{'removed' if remove else 'left by an interrupted build:'} {escape(left.name)}")
    if not found:
        output.print("no interrupted build left anything behind")


@index_app.command("set")
def index_set(
    index: IndexFolder,
    candidates: Annotated[
        int, typer.Option(min=0, help="Number of candidates that a search scores; 0: the engine's default.")
    ],
) -> None:
    """Set how many items a search scores; `dqecir index audit` says how many are enough."""
    from dqecir.index.contract import AUDIT, SearchSettings
    from dqecir.index.engines import open_index

    settings = (
        SearchSettings(candidates=candidates, exact_up_to=candidates, audit=AUDIT) if candidates else None
    )
    open_index(index).configure(settings)
    output.print(f"written to {escape(str(index))}")


@index_app.command("audit")
def index_audit(
    index: IndexFolder,
    model: Model = None,
    queries: Annotated[int, typer.Option(min=1, help="Number of items to make queries from.")] = 200,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the recommended setting in the index.")
    ] = False,
) -> None:
    """Compare approximate searches with exact ones, by queries made from the items; recommend settings."""
    from dqecir.index.engines import open_index
    from dqecir.search.audit import audit
    from dqecir.search.opening import model_of_index

    found = open_index(index)
    result = audit(found, model_of_index(index, model), queries, apply=apply)
    print(result.table())
    if apply:
        output.print(f"written to {escape(str(index))}")


@index_app.command("info")
def index_info(index: IndexFolder) -> None:
    """Print facts about an index, and the folder of its pictures, as JSON."""
    from dqecir.data.picture_root import read_root
    from dqecir.index.engines import open_index
    from dqecir.model.maker import read_maker
    from dqecir.search.product_search import first_views

    root, found, maker = read_root(index), open_index(index), read_maker(index)
    products = {"products": len(first_views(found)), "pictures": len(found)} if found.has_products else {}
    made = {} if maker is None else maker.model_dump(include={"encoder", "licence", "method"})
    said = {**found.info(), **products, "root": None if root is None else str(root), **made}
    print(json.dumps(said, indent=2))


@index_app.command("reroot")
def index_reroot(
    index: IndexFolder,
    images: Annotated[Path, typer.Option("--images", help="The folder that now holds its pictures.")],
) -> None:
    """Store the folder to which the pictures of an index have moved."""
    from dqecir.data.picture_root import is_address, write_root
    from dqecir.index.engines import open_index

    if not images.is_dir():
        raise DataError(f"there is no folder {images}: give the folder of the pictures with --images")
    stored = [str(payload.get("path", "")) for _, payload in open_index(index).entries()]
    relative = [path for path in stored if not (Path(path).is_absolute() or is_address(path))]
    there = sum((images / path).is_file() for path in relative)
    if relative and not there:
        raise DataError(
            f"none of the {len(relative):,} pictures of {index} is in {images}: give the folder that "
            f"contains {relative[0]}"
        )
    write_root(index, images)
    output.print(
        f"the index {escape(str(index))} now finds {there:,} of its {len(relative):,} pictures in "
        f"{escape(str(images))}"
    )


def search(
    image: Annotated[
        Path | None,
        typer.Option("--image", help="The reference picture. Default: none, for a search by text alone."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", help="An index folder. Default: none, with --server.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            help="The address of a service to search with; DQECIR_KEY is the key to send. Default: none.",
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option("--text", help="What should change. Default: nothing, to find similar pictures."),
    ] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="Number of results.")] = 10,
    where: Annotated[str | None, typer.Option(help="A filter: color = red and price < 40.")] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Set an attribute's weight, 0 to 3: colour=2. Repeatable.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option(help="Id of an item that results should resemble. Repeatable.")
    ] = None,
    less: Annotated[
        list[str] | None, typer.Option(help="Id of an item that results should not resemble. Repeatable.")
    ] = None,
    sold_out: Annotated[bool, typer.Option("--sold-out", help="Also find sold-out products.")] = False,
    strictness: Annotated[
        float,
        typer.Option(
            help="How strongly requested values and the garment count, 0 to 3; 0: as the model decides."
        ),
    ] = 1.0,
    earlier: Annotated[
        list[str] | None,
        typer.Option(help="Text of an earlier turn, whose requests are kept. Repeatable, in order."),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            help="One more reference: a picture file or an item's id, and its weight if not 1: b.jpg=0.5. "
            "Repeatable."
        ),
    ] = None,
    rerank: Annotated[
        int, typer.Option(min=0, help="How many of the first candidates to score again. Default: none.")
    ] = 0,
    reranker: Reranker = None,
    model: Model = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Also write the results as a picture (PNG).")
    ] = None,
) -> None:
    """Find the pictures that show the reference changed as the text says, or that a text alone asks for."""
    if sheet is not None and image is None:
        raise DataError(
            "a contact sheet shows the reference image: give one with --image, or leave out --sheet"
        )
    if index is None and server is None:
        raise DataError("there is nothing to search: give --index INDEX or --server URL")
    if index is not None and server is not None:
        raise DataError("give --index or --server, not both: a service searches its own index")
    weights = dict(map(_weight, weight or ()))
    references = list(map(_reference, reference or ()))
    if index is None:
        if not all(one is None for one in (sheet, model, reranker)):
            raise DataError(
                "a service has its own model, reranker and pictures: leave out --model, --reranker and "
                "--sheet"
            )
        from dqecir.service.client import search_on

        request = {
            "text": text,
            "k": k,
            "where": where,
            "weights": weights or None,
            "more": more or [],
            "less": less or [],
            "sold_out": sold_out,
            "spoke": as_json,
            "strictness": strictness,
            "earlier": earlier or [],
            "rerank": rerank,
            "references": [{"item": item, "weight": weight} for _, item, weight in references],
        }
        files = [image, *(file for file, _, _ in references)]
        pictures = [file.read_bytes() for file in files if file is not None]
        reply = search_on(str(server), request, pictures, os.environ.get("DQECIR_KEY"))
    else:
        with loading():
            from dqecir.search.retriever import ComposedRetriever
            from dqecir.search.search_request import WeightedReference

            retriever = ComposedRetriever.of_index(index, model, device)
            if reranker is not None:
                from dqecir.search.cross_encoder import reranker_named

                retriever.reranker = reranker_named(reranker, retriever.model)
        try:
            result = retriever.search(
                image,
                text,
                k,
                where=where,
                weights=weights,
                more=more or (),
                less=less or (),
                explain=as_json,
                sold_out=sold_out,
                strictness=strictness,
                earlier=earlier or (),
                references=[WeightedReference(*one) for one in references],
                rerank=rerank,
            )
        except UnknownItemError as error:
            if error.item_id in {item for _, item, _ in references}:
                raise DataError(
                    f"--reference {error.item_id} is neither a picture file nor the id of an item: check the "
                    "path or the id, and write a weight as b.jpg=0.5"
                ) from None
            raise
        reply = result.as_json()
    if as_json:
        print(json.dumps(reply, indent=2))
    else:
        _print_reply(reply)
    if index is not None and sheet is not None and image is not None:
        result.write_sheet(sheet, image, text)
        console.print(f"the sheet is {sheet}")


def _print_reply(reply: Mapping[str, Any]) -> None:
    for rank, answer in enumerate(reply["answers"], start=1):
        views = f"  ({answer['product']}, {1 + len(answer['views'])} pictures)" if "product" in answer else ""
        output.print(f"{rank:3}. {answer['score']:.3f}  {shown(answer['id'] + views)}")
    if reply["sentence"]:
        output.print(escape(reply["sentence"]))
    hidden = reply["sold_out_hidden"]
    if hidden != 0:
        count = "" if hidden is None else f"{hidden} "
        output.print(f"{count}sold-out products are left out: --sold-out shows them")


def _weight(setting: str) -> tuple[str, float]:
    name, _, number = setting.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise DataError(f"{setting!r} is not ATTRIBUTE=NUMBER: write for example --weight colour=2") from None


def _reference(given: str) -> tuple[Path | None, str | None, float]:
    """Parse a further reference: return its file, or else the id of its item, and its weight."""
    name, _, number = given.rpartition("=")
    try:
        name, weight = (name, float(number)) if name else (given, 1.0)
    except ValueError:
        # The name of the file or item contains an equals sign itself.
        name, weight = given, 1.0
    return (Path(name), None, weight) if Path(name).is_file() else (None, name, weight)
