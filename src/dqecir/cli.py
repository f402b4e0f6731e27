"""The commands, thin: each reads its arguments, calls one function, and prints what came out.

Results go to standard output, progress and messages to standard error. Whatever is wrong with the
input ends as one sentence and a non-zero exit.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console
from rich.markup import escape

from dqecir.fitting.command import fit_command
from dqecir.progress import console
from dqecir.reproduction.command import reproduce_command

if TYPE_CHECKING:
    from dqecir.retriever import BuildSummary

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Composed image retrieval: a picture and what should change find the picture meant.",
)
catalogue_app = typer.Typer(no_args_is_help=True, help="Catalogues: a folder of images and attributes.csv.")
index_app = typer.Typer(no_args_is_help=True, help="Indexes: images that can be searched.")
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(index_app, name="index")
app.command("reproduce")(reproduce_command)
catalogue_app.command("fit")(fit_command)

output = Console(soft_wrap=True)


class Kind(StrEnum):
    """What a drawn catalogue shows."""

    garments = "garments"
    scenes = "scenes"


class Arrangement(StrEnum):
    """How drawn images relate to each other."""

    families = "families"
    independent = "independent"


class Drawing(StrEnum):
    """How changes are drawn: evenly over attributes and values, or as the catalogue has them."""

    balanced = "balanced"
    natural = "natural"


Out = Annotated[Path, typer.Option("--out", help="Where to write.")]
IndexFolder = Annotated[Path, typer.Option("--index", help="An index folder.")]
Model = Annotated[
    Path | None, typer.Option("--model", help="A model folder; the shipped model unless named.")
]


@catalogue_app.command("render")
def catalogue_render(
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    kind: Annotated[
        Kind, typer.Option(help="Garments in the manner of FashionIQ, or scenes of shapes in that of CIRR.")
    ] = Kind.garments,
    items: Annotated[int, typer.Option(min=3, help="Number of images.")] = 2000,
    seed: Annotated[int, typer.Option(help="Decides everything that is drawn.")] = 1,
    size: Annotated[int, typer.Option(min=64, max=512, help="Side of an image in pixels.")] = 96,
    split: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Put all images into train, val or test; drawn 80/10/10 by family unless named."),
    ] = None,
    arrangement: Annotated[
        Arrangement,
        typer.Option(help="Families of near neighbours (scenes: in sets of six), or every image at random."),
    ] = Arrangement.families,
) -> None:
    """Draw a catalogue of garments or scenes with known attributes."""
    from dqecir.data.garments import write_garments
    from dqecir.data.scenes import write_scenes

    write = write_scenes if kind is Kind.scenes else write_garments
    write(out, items=items, seed=seed, size=size, split=split, arrangement=arrangement.value)
    console.print(f"{items} {kind.value} are in {out}")


@catalogue_app.command("check")
def catalogue_check(folder: Annotated[Path, typer.Argument(help="The catalogue.")]) -> None:
    """Say everything that is wrong with a catalogue, by name; exit 1 if anything is."""
    from dqecir.data.catalogue import check_catalogue
    from dqecir.data.images import load_image

    report = check_catalogue(folder, decode=load_image)
    for warning in report.warnings:
        output.print(f"[yellow]warning[/] {escape(warning)}")
    for problem in report.problems:
        output.print(f"[red]problem[/] {escape(problem)}")
    output.print(", ".join(f"{count} {name}" for name, count in report.counts.items()))
    for column, values in report.values.items():
        output.print(
            escape(
                f"{column}: " + ", ".join(f"{value} {count}" for value, count in list(values.items())[:12])
            )
        )
    if report.problems:
        raise typer.Exit(1)
    output.print("[green]the catalogue can be used[/]")


@app.command()
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="A pretraining recipe (YAML).")],
    data: Annotated[list[Path], typer.Option("--data", help="A catalogue; may be given several times.")],
    out: Out,
    split: Annotated[str, typer.Option(help="Images to learn from: train, or train_all with dev.")] = "train",
    texts: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="FashionIQ caption files whose words the tokenizer should know."),
    ] = None,
) -> None:
    """Train a small BLIP-2 from scratch on catalogues, for machines without weights."""
    from dqecir.data.catalogue import read_catalogue
    from dqecir.data.fashioniq import read_captions
    from dqecir.pretraining import Pretrainer
    from dqecir.recipe import read_pretraining_recipe

    settings = read_pretraining_recipe(recipe)
    catalogues = [read_catalogue(folder) for folder in data]
    captions = [caption for path in texts or [] for caption in read_captions(path)]
    work = out.with_name(f".{out.name}.work")
    model = Pretrainer(settings, catalogues, split, work, captions).run()
    model.save_pretrained(out)
    console.print(f"the model is in {out}; what a killed run would resume from is in {work}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A training recipe (YAML).")],
    data: Annotated[list[Path], typer.Option("--data", help="A catalogue; may be given several times.")],
    out: Annotated[
        Path, typer.Option("--out", help="The run folder; best and last in it are model folders.")
    ],
    model: Model = None,
) -> None:
    """Train a method on the triplets of catalogues; a run that was killed is resumed."""
    from dqecir.recipe import read_recipe
    from dqecir.runs import trainer_for

    metrics = trainer_for(read_recipe(recipe), data, model, out).fit()
    console.print(
        f"best and last are in {out}; on dev: "
        + ", ".join(f"{k} {v:.1f}" for k, v in metrics.items() if "/" not in k)
    )


@app.command()
def compare(
    recipe: Annotated[Path, typer.Argument(help="A comparison recipe (YAML).")],
    data: Annotated[Path, typer.Option("--data", help="The catalogue to train on.")],
    out: Annotated[Path, typer.Option("--out", help="Where results and unfinished work lie.")],
    evaluation: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--eval", help="The catalogue whose val split is asked; that of --data unless named."),
    ] = None,
    model: Model = None,
    processes: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Runs at a time, one thread each; as many as there are cores unless named."),
    ] = None,
) -> None:
    """Train and measure several methods over several seeds at equal budgets; a stopped one is resumed."""
    from dqecir.comparison.contest import compare as run_comparison
    from dqecir.comparison.report import budget_means
    from dqecir.evaluation.table import as_table

    result = run_comparison(recipe, data, out, evaluation=evaluation, model=model, processes=processes)
    for title, rows in budget_means(result).items():
        output.print(as_table(title, rows))
    console.print(f"tables, CSV, JSON and plots are in {out}")


@app.command("convert")
def convert_command(
    source: Annotated[str, typer.Option("--from", help="hf or lavis for BLIP-2 itself, or a method (sprc).")],
    file: Annotated[
        Path,
        typer.Argument(help="Its checkpoint: safetensors, .pth of tensors, for hf a folder or hub name."),
    ],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    pretrained: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="BLIP-2's checkpoint: for a FILE without tower (or the tower's file), and covr2."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="Folder or hub name of BERT's word pieces, for whole models.")
    ] = "bert-base-uncased",
) -> None:
    """Turn a checkpoint of a published repository into one of ours, with a report of every key."""
    from dqecir.conversion import convert

    report = convert(source, file, out, pretrained=pretrained, tokenizer=tokenizer)
    output.print(escape(str(report)))
    console.print(f"{out} holds it; what became of every key is in {out / 'conversion.json'}")


@app.command("evaluate")
def evaluate_command(
    data: Annotated[Path, typer.Option("--data", help="A catalogue.")],
    split: Annotated[str, typer.Option(help="Split to ask: its images are references and gallery.")] = "val",
    model: Model = None,
    json_out: Annotated[Optional[Path], typer.Option("--json", help="Also write the metrics here.")] = None,  # noqa: UP045
    gallery_column: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Give every value of this column a gallery of its own, as FashionIQ does."),
    ] = None,
    per_reference: Annotated[int, typer.Option(min=1, help="Questions asked of each image.")] = 2,
    drawing: Annotated[Drawing, typer.Option(help="How the changes are drawn.")] = Drawing.balanced,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
) -> None:
    """Measure a model on a catalogue, beside image only, text only, their sum, and the oracles."""
    from dqecir.evaluation.table import as_table
    from dqecir.files import write_json
    from dqecir.runs import evaluate_on_catalogue

    rows, facts = evaluate_on_catalogue(
        data,
        split,
        model,
        gallery_column=gallery_column,
        per_reference=per_reference,
        drawing=drawing.value,
        seed=seed,
    )
    output.print(as_table(f"{data.name}, {split}: {facts['queries']} questions, percent", rows))
    if json_out is not None:
        write_json(json_out, {"facts": facts, "rows": rows})


@app.command()
def figures(
    model: Annotated[list[str], typer.Option("--model", help="A model as NAME=FOLDER; give several.")],
    data: Annotated[Path, typer.Option("--data", help="A catalogue.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write pictures to.")],
    split: Annotated[str, typer.Option(help="Split to ask: its images are references and gallery.")] = "val",
    recipe: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A training recipe whose mid-zone is drawn; the published bounds unless named."),
    ] = None,
    questions: Annotated[int, typer.Option(min=2, help="Questions that the figures draw from.")] = 400,
    seed: Annotated[int, typer.Option(help="Draws the questions.")] = 0,
) -> None:
    """Draw the mid-zone, attribute weights by question, and the answers of several models side by side."""
    from dqecir.figures import draw_figures, models_named
    from dqecir.recipe import read_recipe

    zone = read_recipe(recipe).negatives if recipe is not None else None
    models = models_named(model)
    for path in draw_figures(models, data, out, split=split, questions=questions, zone=zone, seed=seed):
        output.print(str(path))


@app.command("protocol")
def protocol_command(
    name: Annotated[str, typer.Argument(help="A protocol, such as fashioniq, cirr or circo.")],
    data: Annotated[Path, typer.Option("--data", help="The data set's folder, as it is published.")],
    split: Annotated[str, typer.Option(help="Split to ask.")] = "val",
    images: Annotated[Optional[Path], typer.Option(help="Where its pictures are, if not there.")] = None,  # noqa: UP045
    model: Model = None,
    json_out: Annotated[Optional[Path], typer.Option("--json", help="Also write the metrics here.")] = None,  # noqa: UP045
    submit_to: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--submit", help="Write a test split's submission into this folder instead."),
    ] = None,
) -> None:
    """Measure a model on FashionIQ, CIRR or CIRCO under a named protocol, or write a submission."""
    from dqecir.files import write_json
    from dqecir.runs import evaluate_on_protocol, submit

    if submit_to is not None:
        for path in submit(data, name, split, model, submit_to, images=images):
            output.print(str(path))
        return
    metrics, facts = evaluate_on_protocol(data, name, split, model, images=images)
    for metric, value in metrics.items():
        output.print(f"{escape(metric)}: {value:.2f}")
    if json_out is not None:
        write_json(json_out, {"facts": facts, "metrics": metrics})


@index_app.command("build")
def index_build(
    images: Annotated[Path, typer.Option("--images", help="A folder of pictures.")],
    out: Out,
    model: Model = None,
) -> None:
    """Index a folder of pictures or a catalogue; pictures that cannot be used are left out and named."""
    from dqecir.retriever import ComposedRetriever

    _say_indexed(ComposedRetriever.from_pretrained(model).build_index(images, out), f"indexed in {out}")


@index_app.command("add")
def index_add(
    index: IndexFolder,
    images: Annotated[Path, typer.Option("--images", help="A folder of pictures.")],
    model: Model = None,
) -> None:
    """Add a folder of pictures to an index, in place of items of the same ids."""
    from dqecir.retriever import ComposedRetriever

    retriever = ComposedRetriever.from_pretrained(model).open_index(index)
    _say_indexed(retriever.add_pictures(images), f"added to {index}")


def _say_indexed(summary: BuildSummary, what: str) -> None:
    for refusal in summary.refusals:
        output.print(f"[yellow]left out[/] {escape(str(refusal.path))}: {escape(refusal.reason)}")
    output.print(f"{summary.indexed} images {escape(what)}, {len(summary.refusals)} left out")


@index_app.command("delete")
def index_delete(index: IndexFolder, ids: Annotated[list[str], typer.Argument(help="Ids of items.")]) -> None:
    """Delete items from an index by their ids."""
    from dqecir.index.exact import ExactIndex

    count = ExactIndex.open(index).delete(ids)
    output.print(f"{count} items deleted, {len(set(ids)) - count} were not there")


@index_app.command("info")
def index_info(index: IndexFolder) -> None:
    """Say what an index holds, as JSON."""
    from dqecir.index.exact import ExactIndex

    print(json.dumps(ExactIndex.open(index).info(), indent=2))


@app.command()
def search(
    index: IndexFolder,
    image: Annotated[Path, typer.Option("--image", help="The reference picture.")],
    text: Annotated[str, typer.Option("--text", help="What should change.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of answers.")] = 10,
    where: Annotated[Optional[str], typer.Option(help="A filter: color = red and price < 40.")] = None,  # noqa: UP045
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    sheet: Annotated[Optional[Path], typer.Option("--sheet", help="Write a contact sheet (PNG).")] = None,  # noqa: UP045
) -> None:
    """Find the pictures that show the reference changed as the text says."""
    from dqecir.retriever import ComposedRetriever

    retriever = ComposedRetriever.from_pretrained(model).open_index(index)
    result = retriever.search(image, text, k, where=where)
    if as_json:
        print(json.dumps(result.as_json(), indent=2))
    else:
        for rank, hit in enumerate(result.hits, start=1):
            output.print(f"{rank:3}. {hit.score:.3f}  {escape(hit.id)}")
    if sheet is not None:
        result.write_sheet(sheet, image, text)
        console.print(f"the sheet is {sheet}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to write.")] = Path("demo"),
    items: Annotated[int, typer.Option(min=300, help="Garments to draw.")] = 2000,
) -> None:
    """Draw a catalogue, index it, ask twelve questions, measure, and write a report."""
    from dqecir.demo import run_demo
    from dqecir.evaluation.table import as_table

    output.print(as_table("percent", run_demo(out, items)))


def main() -> None:
    """Run the command line; an expected error is one sentence on standard error and exit 1."""
    from dqecir.backbones.checkpoints import CheckpointError
    from dqecir.data.triplets import DataError

    try:
        app()
    except (DataError, CheckpointError) as error:
        console.print(f"[red]dqecir:[/] {escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped; a training run resumes when it is started again")
        sys.exit(130)
