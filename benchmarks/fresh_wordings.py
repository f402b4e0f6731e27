"""Ask questions in wordings that neither the authors of the parser nor any training saw, and in the usual
ones.

    python -m benchmarks.fresh_wordings --data PHOTOS --name photos --seed 505 \\
        --model "DQE with attribute values=RUN0/best" --model "DQE with attribute values=RUN1/best" \\
        --out WORK/fresh-photos.json

The author of the phrases in fresh_wordings*.yaml knew only the names of columns and values. Questions that
request one value for each column are drawn by a seed that no setting was chosen on; each is asked once in the
catalogue's wording and once in fresh words. Models of one title are seeds of one row; predicted attributes
use the heads of the first.
"""

from __future__ import annotations

import argparse
import platform
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dqecir.data.catalogue import read_catalogue
from dqecir.data.cells import has_value
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import collect, summarise
from dqecir.evaluation.parsing_accuracy import parsing_accuracy
from dqecir.evaluation.predicted import Parse, predicted_scores
from dqecir.io.files import write_json
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark

PHRASES = {
    "first": Path(__file__).with_name("fresh_wordings.yaml"),
    "second": Path(__file__).with_name("fresh_wordings_2.yaml"),
}
"""The rules were bettered with the first set in view; the second is for measuring alone."""
KEPT = ("R@1", "R@10", "mAP@10", "R-precision")
WORDED_AS_ITSELF = 0.5
"""Share of the mentions that keep a value's own word where the phrases know others."""


def change(words: dict[str, Any], value: str, before: str, draw: random.Random) -> str:
    """Return a clause that asks for one change, in fresh words."""
    own = words.get("values", {}).get(value)
    if own:
        return str(draw.choice(own))
    others = words.get("words", {}).get(value) or [value]
    shown = value if draw.random() < WORDED_AS_ITSELF else draw.choice(others)
    # What was before can be said only where it has a plain word of its own.
    unsaid = not has_value(before) or before in words.get("values", {})
    phrasings = [text for text in words["phrasings"] if not (unsaid and "{old}" in text)]
    return str(draw.choice(phrasings)).replace("{value}", shown).replace("{old}", before)


def text_of(
    phrases: dict[str, Any],
    columns: dict[str, Any],
    question: dict[str, str],
    draw: random.Random,
    before: dict[str, str],
) -> str:
    parts = [change(columns[column], value, before[column], draw) for column, value in question.items()]
    draw.shuffle(parts)
    text = parts[0]
    for part in parts[1:]:
        text = draw.choice(phrases["joins"]).format(a=text, b=part)
    return str(draw.choice([*phrases["openings"], "{a}", "{a}", "{a}"])).format(a=text)


def single_values(triplet: Triplet) -> dict[str, str] | None:
    """Return the requested value of each column that requests exactly one."""
    if any(len(values) != 1 for values in triplet.asked.values()):
        return None
    return {column: next(iter(values)) for column, values in triplet.asked.items()}


def reworded(benchmark: Benchmark, name: str, seed: int, phrases_of: Path) -> tuple[Benchmark, Benchmark]:
    """Return the questions that name values, in their usual words and in fresh words."""
    phrases = yaml.safe_load(phrases_of.read_text(encoding="utf-8"))
    columns = phrases[name]["columns"]
    usual, fresh = [], []
    for number, triplet in enumerate(benchmark.triplets):
        question = single_values(triplet)
        if question is None or not set(question) <= set(columns):
            continue
        draw = random.Random(f"{seed} {number}")
        before = {column: benchmark.attributes[column][triplet.reference] for column in question}
        usual.append(triplet)
        fresh.append(replace(triplet, captions=(text_of(phrases, columns, question, draw, before),)))
    return replace(benchmark, triplets=tuple(usual)), replace(benchmark, triplets=tuple(fresh))


def measured(folders: list[Path], wordings: dict[str, Benchmark], work: Path) -> dict[str, list[Any]]:
    """Return wording -> metrics of every model."""
    found: dict[str, list[Any]] = {name: [] for name in wordings}
    for folder in folders:
        model = ComposedModel.from_pretrained(folder).eval()
        for name, benchmark in wordings.items():
            store = store_of(model, benchmark, work)
            found[name].append(summarise(evaluate(model.method, store, model.text_encoder, benchmark)))
    return found


def predicted(folder: Path, wordings: dict[str, Benchmark], columns: list[str], work: Path) -> dict[str, Any]:
    """Return rows without training by the heads of a model, and the shares of texts that its rules read
    exactly.
    """
    model = ComposedModel.from_pretrained(folder)
    names = [vocabulary.name for vocabulary in model.vocabularies]
    method = model.with_method(
        "predicted_attributes", {"attributes": names, "columns": columns}
    ).method.eval()
    assert isinstance(method, PredictedAttributes)
    rows: dict[str, Any] = {"parsed exactly": {}, "predicted attributes, exact": {}}
    rows["predicted attributes, exact, perfect parse"] = {}
    for name, benchmark in wordings.items():
        store = store_of(model, benchmark, work)
        rows["parsed exactly"][name] = parsing_accuracy(method.parser, benchmark)["all"]
        parses: tuple[tuple[Parse, str], ...] = (("text", "exact"), ("perfect", "exact, perfect parse"))
        for parse, title in parses:
            results = collect(benchmark, predicted_scores(method, store, benchmark, parse))
            rows[f"predicted attributes, {title}"][name] = [summarise(results)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True, choices=("photos", "garments", "scenes"))
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--model", action="append", required=True, help="TITLE=FOLDER")
    parser.add_argument("--questions", type=int, default=3000)
    parser.add_argument("--phrases", choices=PHRASES, default="first")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    models: dict[str, list[Path]] = {}
    for title, _, folder in (text.rpartition("=") for text in given.model):
        models.setdefault(title, []).append(Path(folder))
    drawn = catalogue_benchmark(
        read_catalogue(given.data), "val", seed=given.seed, count=given.questions, wording="evaluation"
    )
    usual, fresh = reworded(drawn, given.name, given.seed, PHRASES[given.phrases])
    wordings = {"usual": usual, "fresh": fresh}
    work = given.out.parent / f"fresh-tokens-{given.name}"
    columns = [column for column, cells in drawn.attributes.items() if len(set(cells)) > 1]
    rows = predicted(next(iter(models.values()))[0], wordings, columns, work)
    read = rows.pop("parsed exactly")
    for title, folders in models.items():
        rows[title] = measured(folders, wordings, work)
    write_json(
        given.out,
        {
            "name": given.name,
            "phrases": given.phrases,
            "seed": given.seed,
            "questions": len(usual.triplets),
            "images": len(usual.image_ids),
            "examples": [" / ".join(triplet.captions) for triplet in fresh.triplets[:12]],
            "machine": platform.machine(),
            "parsed exactly": read,
            "rows": {
                title: {w: [{key: row[key] for key in KEPT} for row in found] for w, found in by.items()}
                for title, by in rows.items()
            },
        },
    )


if __name__ == "__main__":
    main()
