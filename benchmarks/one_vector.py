"""Compare the rule ``dot`` of dqe_values with ``likelihood``, and write the section of docs/method.md.

    python -m benchmarks.one_vector --data PHOTOS --work WORK --part untrained trained search write

``untrained``: the shipped model's weights, scored by each rule, and by ``dot`` in fewer numbers. ``trained``:
both rules trained on PHOTOS from the shipped backbone, with the same steps and seeds. ``search``: an exact
search by each rule, in turns. Each part writes a JSON file to WORK; ``write`` makes the section from them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.pages import write_part
from benchmarks.speed.timing import machine, paired
from torch import Tensor

from dqecir import __version__
from dqecir.data.catalogue import read_catalogue
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.evaluation.evaluate import embed_images, embed_queries, evaluate
from dqecir.evaluation.metrics import summarise
from dqecir.index.contract import IndexHeader, ItemBatch
from dqecir.index.exact import ExactIndex
from dqecir.io.files import write_json
from dqecir.methods import value_vectors
from dqecir.methods.dqe_values import DqeValues
from dqecir.methods.value_vectors import ValueSlices
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark
from dqecir.training.build import trainer_for
from dqecir.training.recipe import read_recipe

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "method.md"
KEPT = ("R@10", "mAP@10")
RULES = ("likelihood", "dot")
FEWER = (224, 192, 176)
"""Numbers a picture in which wide columns must be reduced."""
ITEMS = (10_000, 100_000)
BATCH = 5_000
ROUNDS = 30
Measurement = dict[str, Any]


def questions(data: Path, split: str) -> Benchmark:
    """Return the questions of dev as training draws them, or the 2,000 of val."""
    catalogue = read_catalogue(data)
    if split == "val":
        return catalogue_benchmark(catalogue, "val", seed=0, count=2000)
    return catalogue_benchmark(catalogue, split, seed=1, per_reference=2)


def stored(model: ComposedModel, benchmark: Benchmark, work: Path, split: str) -> TokenStore:
    return store_of(model, benchmark, work / f"tokens-{split}", quiet=True)


def shipped(model: ComposedModel) -> str:
    """Return which shipped model was measured: its version, and the rule that trained it."""
    rule = model.options.model_dump()["rule"]
    return f"the model shipped with version {__version__} (trained with `{rule}`)"


def read_by(rule: str, model: ComposedModel) -> ComposedModel:
    """Return the model's weights under another rule."""
    read = model.with_method(DqeValues.name, {**model.options.model_dump(), "rule": rule}).eval()
    # Slices have buffers of their own, which no weights of the model take the place of.
    read.method.load_state_dict(read.method.state_dict() | model.method.state_dict())
    return read


def row(model: ComposedModel, asked: dict[str, tuple[Benchmark, TokenStore]]) -> Measurement:
    """Return metrics of each split, and the numbers of a target."""
    found: Measurement = {"numbers": model.method.target_shape[0] * model.method.target_shape[1]}
    for split, (benchmark, store) in asked.items():
        summary = summarise(evaluate(model.method, store, model.text_encoder, benchmark, kept=0))
        found[split] = {key: summary[key] for key in KEPT}
    return found


def parts(data: Path, work: Path, model: ComposedModel) -> dict[str, tuple[Benchmark, TokenStore]]:
    return {
        split: (benchmark, stored(model, benchmark, work, split))
        for split, benchmark in ((split, questions(data, split)) for split in ("dev", "val"))
    }


def untrained(data: Path, work: Path) -> Measurement:
    model = ComposedModel.from_pretrained().eval()
    asked = parts(data, work, model)
    rows = {rule: row(read_by(rule, model), asked) for rule in RULES}
    read = read_by("dot", model)
    with patch.object(value_vectors, "RIDGE", 1e9):
        rows["dot, expected logarithm alone"] = row(read, asked)
    pictures = stored(model, questions(data, "train"), work, "train")
    method = read.method
    assert isinstance(method, DqeValues)
    for most in FEWER:
        method.layout = ValueSlices(method.sizes, model.backbone.sizes.embedding, most)
        method.fit_targets(pictures.gather(some) for some in torch.arange(len(pictures)).split(256))
        rows[f"dot, reduced to {method.target_shape[1]} numbers"] = row(read, asked)
    return {"rows": rows, "model": shipped(model)}


def trained(data: Path, work: Path, steps: int, seeds: list[int]) -> Measurement:
    """Return metrics of each rule and seed; ``best`` is chosen on dev."""
    base = read_recipe(ROOT / "recipes" / "dqe-values.yaml")
    asked = parts(data, work, ComposedModel.from_pretrained())
    rows: dict[str, list[Measurement]] = {rule: [] for rule in RULES}
    for seed in seeds:
        for rule in RULES:
            recipe = base.model_copy(update={"options": {**base.options, "rule": rule}})
            recipe = recipe.with_training(steps=steps, seed=seed)
            run = work / f"run-{rule}-{steps}-{seed}"
            if not (run / "done.json").exists():
                trainer_for(recipe, [data], None, run, work / "tokens-training", quiet=True).fit()
            done = json.loads((run / "done.json").read_text(encoding="utf-8"))
            seconds = next(value for name, value in done.items() if "second" in name)
            rows[rule].append(
                row(ComposedModel.from_pretrained(run / "best"), asked) | {"seed": seed, "seconds": seconds}
            )
    return {"steps": steps, "rows": rows, "model": shipped(ComposedModel.from_pretrained())}


def items(targets: Tensor, count: int) -> Iterator[ItemBatch]:
    """Yield ``count`` items from the targets [N, n_t, D], in turn, each with a little noise."""
    draw = torch.Generator().manual_seed(0)
    for start in range(0, count, BATCH):
        rows = torch.arange(start, min(start + BATCH, count))
        tokens = targets[rows % len(targets)]
        noise = 1e-3 * torch.rand(tokens.shape, generator=draw)
        yield ItemBatch([str(row) for row in rows.tolist()], tokens + noise, [{}] * len(rows))


def search(data: Path, work: Path) -> Measurement:
    model = ComposedModel.from_pretrained().eval()
    benchmark = questions(data, "dev")
    store = stored(model, benchmark, work, "dev")
    triplets = benchmark.triplets[:ROUNDS]
    rows: Measurement = {}
    for count in ITEMS:
        works, sizes = {}, {}
        for rule in RULES:
            read = read_by(rule, model)
            tokens, width = read.method.target_shape
            folder = work / f"index-{rule}-{count}"
            header = IndexHeader(
                model="benchmark", tokens=tokens, size=width, score_rule=read.method.score_rule
            )
            index = ExactIndex.build(folder, header, items(embed_images(read.method, store), count))
            whole = index.with_settings(None)
            texts = [read.method.text(triplet.captions) for triplet in triplets]
            references = [triplet.reference for triplet in triplets]
            queries = iter(
                embed_queries(read.method, store, read.text_encoder, references, texts)
                .repeat(2, 1, 1)
                .split(1)
            )
            works[rule] = lambda whole=whole, queries=queries: whole.search(next(queries), 10)
            sizes[rule] = 2 * tokens * width * count
        seconds = paired(works, torch.device("cpu"), ROUNDS)
        rows[str(count)] = {
            rule: {
                "milliseconds": {key: 1000 * value for key, value in seconds[rule].items()},
                "bytes": sizes[rule],
            }
            for rule in RULES
        }
        for rule in RULES:
            shutil.rmtree(work / f"index-{rule}-{count}")
    return {"rows": rows}


def quality(found: Measurement) -> list[str]:
    lines = ["| R@10 / mAP@10 | numbers per picture | dev | val |", "|---|---|---|---|"]
    for name, values in found["rows"].items():
        cells = (" / ".join(f"{values[split][key]:.1f}" for key in KEPT) for split in ("dev", "val"))
        lines.append(f"| {name} | {values['numbers']:,} | {' | '.join(cells)} |")
    return lines


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def after_training(found: Measurement) -> list[str]:
    rows, lines = found["rows"], ["| R@10 / mAP@10 | dev | val | CPU seconds |", "|---|---|---|---|"]
    for rule in RULES:
        cells = (
            " / ".join(spread([one[split][key] for one in rows[rule]]) for key in KEPT)
            for split in ("dev", "val")
        )
        seconds = statistics.mean(one["seconds"] for one in rows[rule])
        lines.append(f"| {rule} | {' | '.join(cells)} | {seconds:.0f} |")
    cells = (
        " / ".join(
            spread(
                [
                    dot[split][key] - own[split][key]
                    for own, dot in zip(*(rows[r] for r in RULES), strict=True)
                ]
            )
            for key in KEPT
        )
        for split in ("dev", "val")
    )
    return [*lines, f"| dot less likelihood, of the same seed | {' | '.join(cells)} | |"]


def timed(found: Measurement) -> list[str]:
    lines = ["| items | rule | ms per search: median (least to most) | MB of tokens |", "|---|---|---|---|"]
    for count, rules in found["rows"].items():
        for rule, values in rules.items():
            took = values["milliseconds"]
            span = f"{took['median']:.1f} ({took['least']:.1f} to {took['most']:.1f})"
            lines.append(f"| {int(count):,} | {rule} | {span} | {values['bytes'] / 1e6:.0f} |")
    return lines


def where(found: Measurement) -> str:
    used = found["machine"]
    machine = f"{used['cpu']}, {used['cores']} cores, threads: {used['threads']}, torch {used['torch']}"
    return f"{machine}, load {used['load']} at the end"


def written(work: Path) -> list[str]:
    """Return the lines of the page's part, with what was measured."""
    read = {
        part: json.loads((work / f"{part}.json").read_text(encoding="utf-8"))
        for part in ("untrained", "trained", "search")
        if (work / f"{part}.json").exists()
    }
    lines: list[str] = []
    if found := read.get("untrained"):
        lines += [
            "",
            f"Photos: {found['model']}, scored by each rule, on two questions for each picture of dev and "
            "2,000 questions of val. The form of `dot` was chosen on dev.",
            "",
            *quality(found),
        ]
    if found := read.get("trained"):
        seeds = len(found["rows"]["dot"])
        lines += [
            "",
            f"Photos: trained by `recipes/dqe-values.yaml` for {found['steps']} steps from the backbone of "
            f"{found['model']}; {seeds} seeds, mean ± standard deviation ({where(found)}).",
            "",
            *after_training(found),
        ]
    if found := read.get("search"):
        lines += [
            "",
            f"Exact search: {ROUNDS} searches for each rule, in turns ({where(found)}).",
            "",
            *timed(found),
        ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--part", nargs="+", choices=("untrained", "trained", "search", "write"), required=True
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for part in given.part:
        if part == "write":
            write_part(PAGE, "one vector", written(given.work))
            continue
        if part == "trained":
            found = trained(given.data, given.work, given.steps, given.seeds)
        else:
            found = {"untrained": untrained, "search": search}[part](given.data, given.work)
        write_json(given.work / f"{part}.json", {**found, "machine": machine()})


if __name__ == "__main__":
    main()
