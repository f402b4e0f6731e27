"""``dqecir catalogue``: a folder of images and attributes.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from dqecir.cli.arguments import (
    Device,
    Encoder,
    IndexFolder,
    Model,
    SheetName,
    output,
    print_left_out,
    shown,
    start_of,
)
from dqecir.errors import PROBLEMS_SHOWN, counted
from dqecir.io.progress import console

catalogue_app = typer.Typer(no_args_is_help=True, help="Catalogues: a folder of images and attributes.csv.")


@catalogue_app.command("render")
def catalogue_render(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    kind: Annotated[
        Literal["garments", "scenes"],
        typer.Option(help="Garments as in FashionIQ, or scenes of shapes as in CIRR."),
    ] = "garments",
    items: Annotated[int, typer.Option(min=3, help="Number of images.")] = 2000,
    seed: Annotated[int, typer.Option(help="The random seed of everything that is drawn.")] = 1,
    size: Annotated[int, typer.Option(min=64, max=512, help="Side of an image in pixels.")] = 96,
    split: Annotated[
        str | None,
        typer.Option(help="Put all images into train, val or test. Default: drawn 80/10/10 by family."),
    ] = None,
    arrangement: Annotated[
        Literal["families", "independent"],
        typer.Option(help="Families of similar images (scenes: sets of six), or independent images."),
    ] = "families",
) -> None:
    """Draw a catalogue of garments or scenes with known attributes."""
    from dqecir.synthetic.garments import GARMENTS
    from dqecir.synthetic.scenes import SCENES

    drawn = SCENES if kind == "scenes" else GARMENTS
    drawn.write(out, items=items, seed=seed, size=size, split=split, arrangement=arrangement)
    console.print(f"{items} {kind} are in {out}")


@catalogue_app.command("check")
def catalogue_check(
    folder: Annotated[Path, typer.Argument(help="The catalogue.")],
    sheet_name: SheetName = None,
) -> None:
    """List all mistakes of a catalogue and the roles of its columns; exit with 1 if there is a mistake."""
    from dqecir.data.catalogue import check_catalogue
    from dqecir.data.images import load_image

    report = check_catalogue(folder, decode=load_image, sheet=sheet_name, quiet=False)
    for warning in report.warnings:
        output.print(f"[yellow]warning[/] {escape(warning)}")
    for problem in report.problems:
        output.print(f"[red]problem[/] {escape(problem)}")
    if report.products < report.counts["images"] or report.variants:
        pictures = report.counts["images"]
        output.print(f"{report.products} products, {pictures} pictures, {report.variants} variants")
    output.print(", ".join(f"{count} {name}" for name, count in report.counts.items()))
    for column, role in report.roles.items():
        values = report.values.get(column, {}) if role in ("attribute", "price", "availability") else {}
        first = ", ".join(f"{value} {count}" for value, count in list(values.items())[:12])
        output.print(shown(f"{column} [{role}]" + (f": {first}" if first else "")))
    if report.problems:
        raise typer.Exit(1)
    output.print("[green]the catalogue can be used[/]")


@catalogue_app.command("fit")
def catalogue_fit(
    folder: Annotated[Path, typer.Argument(help="The catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="Where report, model and index are written.")],
    model: Model = None,
    encoder: Encoder = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="A training recipe. Default: that of recipes/fit.yaml.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The random seed of splits, questions and examples.")] = 0,
    sheet_name: SheetName = None,
    device: Device = "auto",
) -> None:
    """Check a catalogue, train on it, measure, index it and write a report; resume a stopped run."""
    from dqecir.evaluation.table import as_table
    from dqecir.experiments.fit.steps import fit_catalogue
    from dqecir.io.device import chosen_device, use_device

    use_device(device)
    chosen_device()  # Report a missing device before the work begins.
    rows = fit_catalogue(folder, out, start_of(model, encoder), recipe, seed, sheet=sheet_name)
    output.print(as_table(f"{folder.name}, percent", rows))


@catalogue_app.command("update")
def catalogue_update(
    folder: Annotated[Path, typer.Argument(help="The catalogue, or a folder of pictures.")],
    index: IndexFolder,
    model: Model = None,
    sheet_name: SheetName = None,
    device: Device = "auto",
) -> None:
    """Bring an index up to date with its catalogue: encode new pictures, change rows, delete items."""
    from dqecir.search.retriever import ComposedRetriever

    summary = ComposedRetriever.of_index(index, model, device).update_index(folder, sheet=sheet_name)
    print_left_out(summary.refusals, summary.warnings, folder)
    output.print(
        f"{summary.new} new, {summary.pictures_changed} pictures changed, "
        f"{summary.rows_changed} rows changed, {summary.removed} removed, {summary.unchanged} unchanged"
    )
    if summary.kept:
        output.print(f"{summary.kept} items that were added in other ways are unchanged")


@catalogue_app.command("fetch")
def catalogue_fetch(
    table: Annotated[Path, typer.Argument(help="A table that names pictures by address.")],
    out: Annotated[Path, typer.Option("--out", help="The folder of the catalogue to write.")],
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="Also fetch from private networks and from this machine."),
    ] = False,
    sheet_name: SheetName = None,
) -> None:
    """Download the pictures that a table names by address, into a catalogue; resume a stopped run."""
    from dqecir import __version__
    from dqecir.data.fetching import MISSING, MOST_BYTES, fetch_pictures
    from dqecir.io.downloads import Downloader

    with Downloader(f"dqecir/{__version__}", MOST_BYTES, allow_private) as downloader:
        summary = fetch_pictures(table, out, downloader, sheet_name)
    for sentence in summary.missing[:PROBLEMS_SHOWN]:
        output.print(f"[yellow]missing[/] {shown(sentence)}")
    if len(summary.missing) > PROBLEMS_SHOWN:
        output.print(f"… and {len(summary.missing) - PROBLEMS_SHOWN} more")
    if summary.missing:
        output.print(f"all missing pictures are listed in {escape(str(out / MISSING))}")
    output.print(
        f"{counted(summary.fetched, 'picture')} fetched, {summary.kept} were there; "
        f"{counted(summary.rows, 'row')} in {escape(str(out))}"
    )
