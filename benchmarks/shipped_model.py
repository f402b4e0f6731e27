"""Compare the shipped model with that of version 0.1.0, and write the tables of docs/shipped-model.md.

    python -m benchmarks.shipped_model --photos PHOTOS --products PRODUCTS --drawn GARMENTS

Questions are those of the ``val`` splits of three catalogues: PRODUCTS as ``recipes/data/shop-sources.yaml``
reads it, and GARMENTS as ``dqecir catalogue render GARMENTS --items 2000 --seed 99 --split val`` draws it.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.pages import write_part

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import RetrievalResults, collect, summarise
from dqecir.evaluation.oracles import oracle_scores
from dqecir.evaluation.predicted import predicted_scores
from dqecir.evaluation.table import baselines
from dqecir.io.markdown import table
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark
from dqecir.settings import read_settings
from dqecir.training.pretraining_data import as_source
from dqecir.training.recipe import SourcesFile

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "shipped-model.md"
EARLIER = ROOT / "tests" / "models" / "of_0_1_0"
COLUMNS = ("garment", "color", "pattern", "print", "sleeves", "length", "neck", "gender", "usage")
QUESTIONS = 2000


def asked(catalogue: Catalogue) -> Benchmark:
    """Return the questions of a catalogue; those of photos are the frozen ones of
    recipes/compare/photos.yaml.
    """
    known = [name for name in catalogue.attributes if name in COLUMNS]
    return catalogue_benchmark(
        catalogue.with_columns(known), "val", seed=0, count=QUESTIONS, wording="evaluation"
    )


def found(model: ComposedModel, benchmark: Benchmark) -> Iterator[tuple[str, RetrievalResults]]:
    """Return the results of each way of searching, all of them with the tower of ``model``."""
    with tempfile.TemporaryDirectory() as work:
        store = store_of(model, benchmark, Path(work) / "tokens", quiet=True)
        yield "composed", evaluate(model.method, store, model.text_encoder, benchmark, kept=0)
        columns = tuple(getattr(model.method, "columns", ()))
        named = model.with_method("predicted_attributes", {"columns": columns}).eval().method
        assert isinstance(named, PredictedAttributes)
        scores = predicted_scores(named, store, benchmark, "text")
        yield "predicted attributes, exact", collect(benchmark, scores)
        for name, one in baselines(model).items():
            yield (
                name.replace("_", " "),
                evaluate(one.method, store, one.text_encoder, benchmark, kept=0),
            )


def row(name: str, results: RetrievalResults) -> list[str]:
    values = summarise(results)
    precision = results.average_precision_10
    error = 100 * float(precision.std(ddof=1)) / np.sqrt(len(precision))
    return [
        name,
        *(f"{values[key]:.1f}" for key in ("R@1", "R@10", "R@50")),
        f"{values['mAP@10']:.1f} ± {error:.1f}",
    ]


def measured(catalogue: Catalogue, model: ComposedModel, earlier: ComposedModel | None) -> list[str]:
    """Return a table of the model's results in a catalogue, and of those that the earlier model composes."""
    benchmark = asked(catalogue)
    rows = [row(name, results) for name, results in found(model, benchmark)]
    if earlier is not None:
        rows.append(row("composed by the model of 0.1.0", next(found(earlier, benchmark))[1]))
    rows.append(row("oracle, by the true attributes", collect(benchmark, oracle_scores(benchmark, "full"))))
    size = sum(map(len, benchmark.galleries.values()))
    head = [f"{len(benchmark.triplets):,} questions, {size:,} pictures", "R@1", "R@10", "R@50", "mAP@10"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("photos", "products", "drawn"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="A model folder. Default: the shipped model.")
    given = parser.parse_args()
    model = ComposedModel.from_pretrained(given.model).eval()
    earlier = ComposedModel.from_pretrained(EARLIER).eval()
    _, of_products, _ = read_settings(ROOT / "recipes" / "data" / "shop-sources.yaml", SourcesFile).sources
    parts = (
        ("Photos", read_catalogue(given.photos), earlier),
        ("Products", as_source(read_catalogue(given.products), of_products), None),
        ("Drawn garments", read_catalogue(given.drawn), earlier),
    )
    written = [
        "Percent; ± is the standard error over questions. One seed of training. "
        f"Machine: {platform.machine()}, {os.cpu_count()} cores.",
        "",
    ]
    for title, catalogue, beside in parts:
        written += [f"### {title}", "", *measured(catalogue, model, beside), ""]
    write_part(PAGE, "accuracy", written)


if __name__ == "__main__":
    main()
