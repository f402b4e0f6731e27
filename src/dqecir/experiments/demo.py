"""The demonstration: draw a catalogue, index it, answer questions and measure, with one command."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import tempfile
import time
from pathlib import Path

from rich.markup import escape

from dqecir.data.catalogue import read_catalogue
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import summarise
from dqecir.evaluation.table import SHOWN, baseline_rows, oracle_rows
from dqecir.experiments.examples import drawn_questions, searched
from dqecir.io.contact_sheets import contact_sheet, html_report
from dqecir.io.files import write_json
from dqecir.io.progress import console
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.model.public_weights import read_model
from dqecir.questions.composing import catalogue_benchmark
from dqecir.search.retriever import ComposedRetriever
from dqecir.synthetic.garments import GARMENTS

QUESTIONS, ANSWERS = 12, 10
GALLERY = "garment"
"""Column whose values have a gallery each: dresses are searched among dresses."""

PER_SHEET = 6


def run_demo(out: Path, items: int = 2000, seed: int = 20_260_101) -> dict[str, dict[str, float]]:
    """Draw a catalogue, index it, answer questions, measure, and write ``out/report.html`` and PNG sheets.

    ``items`` is the number of drawn pictures. A folder ``out/garments`` is replaced. Returns the rows of the
    report's table: name -> metric -> percent.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    folder = out / "garments"
    if folder.exists():
        shutil.rmtree(folder)
    GARMENTS.write(folder, items=items, seed=seed, size=96, split="val")
    retriever = ComposedRetriever(read_model())
    benchmark = catalogue_benchmark(
        read_catalogue(folder),
        "val",
        seed=seed,
        count=900,
        wording="evaluation",
        gallery_column=GALLERY,
        name="garments",
    )
    with tempfile.TemporaryDirectory() as work:
        tokens = Path(work) / "tokens"
        summary = retriever.build_index(folder, out / "index", tokens=tokens)
        rows = _measure(retriever.model, benchmark, tokens)
    answers = [
        searched(retriever, benchmark, number, ANSWERS, GALLERY)
        for number in drawn_questions(benchmark, QUESTIONS, seed)
    ]
    sheets = [
        contact_sheet(answers[start : start + PER_SHEET], out / f"answers-{start // PER_SHEET + 1}.png")
        for start in range(0, len(answers), PER_SHEET)
    ]
    report = html_report(
        out / "report.html",
        "Composed search on a catalogue of garments",
        f"{items:,} garments that the model never saw, drawn by a program. Each question is a reference "
        "image and a text; right answers are outlined. The questions are drawn by seed, not chosen, "
        "and answered as dqecir search answers them.",
        answers,
        rows,
        SHOWN,
        {
            "catalogue": f"{summary.indexed:,} images indexed, seed {seed}",
            "questions measured": f"{len(benchmark.triplets):,}, half in unseen wordings",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "time": f"{time.monotonic() - started:.0f} s",
        },
    )
    write_json(out / "metrics.json", rows)
    console.print(
        f"\nThe report is at [bold]{escape(str(report))}[/]; the sheets are "
        f"{escape(', '.join(map(str, sheets)))}."
    )
    first = next((folder / "images").iterdir())
    question = ["--image", str(first), "--text", "is red and has long sleeves", "--sheet", "answer.png"]
    command = shlex.join(["dqecir", "search", "--index", str(out / "index"), *question])
    console.print(f"Try next, with any picture of yours instead of this one:\n  {escape(command)}")
    return rows


def _measure(model: ComposedModel, benchmark: Benchmark, tokens: Path) -> dict[str, dict[str, float]]:
    """Measure the model, baselines and oracles; return the rows of the report's table."""
    store = store_of(model, benchmark, tokens)
    rows = {"the shipped model": summarise(evaluate(model.method, store, model.text_encoder, benchmark))}
    return rows | baseline_rows(model, store, benchmark) | oracle_rows(benchmark)
