"""The steps of a fit: check, triplets, training, figures, index and report of one's own catalogue."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from safetensors.torch import load_file, save
from torch import Tensor

from dqecir.data.catalogue import Catalogue, check_catalogue, read_catalogue
from dqecir.data.catalogue_table import find_table
from dqecir.data.images import load_image
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.errors import CatalogueError, DataError, EngineError
from dqecir.evaluation.evaluate import evaluate, query_scores
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect, summarise
from dqecir.evaluation.table import baseline_rows
from dqecir.evaluation.weights import recall_by_asked
from dqecir.experiments.examples import answer_of, drawn_questions
from dqecir.experiments.fit.column_use import ColumnPlan, plan_columns, vocabularies_for
from dqecir.experiments.fit.fit_report import QUESTIONS, SHOWN_ANSWERS, Findings, write_reports
from dqecir.io.files import whole_folder, write_bytes, write_json
from dqecir.io.progress import console
from dqecir.io.run_folder import claim
from dqecir.language.numeric_constraints import ConstraintReader, NumericConstraint
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig, TextEncoder
from dqecir.methods.dqe_values import DqeValues
from dqecir.methods.dual_values import DualValues
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.methods.value_vectors import MOST_NUMBERS
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.questions.comparatives import Comparatives, Intent, with_comparatives
from dqecir.questions.composing import catalogue_benchmark
from dqecir.search.retriever import ComposedRetriever
from dqecir.settings import Strict
from dqecir.training.build import build_trainer, model_for
from dqecir.training.data import attribute_codes
from dqecir.training.heads import HeadScore, fit_heads, warm_start
from dqecir.training.loop import Evaluator
from dqecir.training.recipe import Recipe, read_recipe

FILE = "fit.json"
"""File of the settings that a folder is claimed with."""
VAL_SHARE = 0.1
"""Share of train that is asked where the table has neither val nor test."""
MOST_QUESTIONS = 2000
TOKENS = "tokens"
"""Folder of image tokens in that of a fit."""
COMPARED = 0.25
"""Share of the training questions that also compare a number."""


class FitSettings(Strict):
    """What a folder is claimed with: hash of the table, fingerprint of the model, and how it is trained."""

    table: str
    model: str
    recipe: Recipe
    seed: int


@dataclass(frozen=True)
class _Fit:
    """What all steps of one fit share."""

    folder: Path
    out: Path
    recipe: Recipe
    seed: int
    quiet: bool
    plan: ColumnPlan
    start: ComposedModel
    sheet: str | None

    def store(self, paths: tuple[Path, ...]) -> TokenStore:
        """Tokens of some pictures, of one folder for all of them."""
        return TokenStore.build(
            self.out / TOKENS,
            self.start.backbone.image_tokens,
            self.start.tower_fingerprint,
            self.start.preprocessing,
            paths,
            quiet=self.quiet,
            precision=self.recipe.training.tokens,
        )

    def part(self, split: str) -> tuple[TokenStore, Tensor]:
        """A split's tokens, and the codes of its attributes."""
        images = self.plan.catalogue.split(split)
        paths = tuple(self.plan.catalogue.image_paths[image] for image in images)
        given = {c: [cells[i] for i in images] for c, cells in self.plan.catalogue.attributes.items()}
        return self.store(paths), attribute_codes(given, len(images), self.plan.columns)

    def numbers(self, split: str) -> dict[str, NDArray[np.float64]]:
        """The numbers of a split's images."""
        images = self.plan.catalogue.split(split)
        return {column: values[images] for column, values in self.plan.numbers.items()}


def fit_catalogue(
    folder: Path,
    out: Path,
    model: Path | str | None = None,
    recipe: Path | None = None,
    seed: int = 0,
    quiet: bool = False,
    sheet: str | None = None,
) -> dict[str, dict[str, float]]:
    """Fit a model to a catalogue: ``out`` gets ``report.html``, ``report.md``, ``run/best`` and ``index``.

    ``sheet`` names a sheet of the catalogue's workbook. Default: the first.

    Returns the rows of the table. A fit that was stopped goes on where it was. Raises ``DataError`` for
    a catalogue with problems (all of them at once) and where ``out`` holds another fit.
    """
    started = time.monotonic()
    checked = check_catalogue(folder, decode=load_image, sheet=sheet)
    if checked.problems:
        raise CatalogueError(folder, checked.problems)
    start = read_model(model)
    settings = read_recipe(recipe) if recipe is not None else _shipped_recipe()
    if settings.method != DqeValues.name:
        raise DataError(f"a catalogue is fitted by {DqeValues.name}, and the recipe is for {settings.method}")
    _claim(folder, out, start, settings, seed, sheet)
    known = start.heads.config.columns if start.heads is not None else {}
    catalogue = _with_val(read_catalogue(folder, seed, sheet), seed)
    one_vector = settings.options.get("rule") == "dot"  # whose columns may be wider than an embedding
    plan = plan_columns(catalogue, known, MOST_NUMBERS if one_vector else start.backbone.sizes.embedding)
    fit = _Fit(folder, out, settings, seed, quiet, plan, start, sheet)
    for use in plan.uses:
        console.print(escape(f"column {use.column}: {use.kind}: {use.note}"))
    heads, scores = _heads(fit)
    fitted = _train(fit, heads)
    rows, asked, results, store = _measure(fit, fitted, read_model(model))
    pictures = _index(fit, fitted)
    example = results.benchmark.image_paths[results.benchmark.triplets[0].reference]
    text = results.benchmark.triplets[0].captions[0]
    command = shlex.join(
        ["dqecir", "search", "--index", str(out / "index"), "--model", str(out / "run" / "best")]
        + ["--image", str(example), "--text", text, "--sheet", "answer.png"]
    )
    facts = {
        "index": _indexed(catalogue, pictures),
        "questions measured": f"{len(results.benchmark.triplets):,}, half in unseen wordings",
        "time": f"{time.monotonic() - started:.0f} s since it was last started",
    }
    findings = Findings(rows, asked, plan.uses, scores, facts, command)
    write_json(out / "metrics.json", {"rows": rows, "asked": asked})
    answers = [
        answer_of(fitted, store, results, number, SHOWN_ANSWERS)
        for number in drawn_questions(results.benchmark, QUESTIONS, seed)
    ]
    report = write_reports(out, folder.resolve().name, findings, answers)
    console.print(f"\nThe report is at [bold]{escape(str(report))}[/]. Search now:\n  {escape(command)}")
    return rows


def _shipped_recipe() -> Recipe:
    with resources.as_file(resources.files("dqecir") / "assets" / "recipes" / "fit.yaml") as path:
        return read_recipe(path)


def _claim(
    folder: Path, out: Path, start: ComposedModel, recipe: Recipe, seed: int, sheet: str | None
) -> None:
    """Note what ``out`` is a fit of, and refuse one that is of something else."""
    if not (out / FILE).exists() and out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty and holds no fit: name another --out")
    file = find_table(folder)
    assert file is not None  # the catalogue has been checked
    table = hashlib.sha256(file.read_bytes() + (sheet or "").encode()).hexdigest()
    claim(out, FILE, FitSettings(table=table, model=start.fingerprint, recipe=recipe, seed=seed), "fit")


def _with_val(catalogue: Catalogue, seed: int) -> Catalogue:
    """The catalogue with a val split: its own, else test, else a seeded share of train.

    Sets and products stay whole.
    """
    splits = dict(catalogue.splits)
    if splits["val"].size:
        return catalogue
    if splits["test"].size:
        return replace(catalogue, splits={**splits, "val": splits["test"]})
    own_units = catalogue.units
    names = [own_units[i] for i in splits["train"]]
    units = sorted(set(names))
    count = max(1, round(VAL_SHARE * len(units)))
    held = {units[i] for i in np.random.default_rng(seed).permutation(len(units))[:count]}
    is_val = np.array([name in held for name in names], dtype=bool)
    splits |= {"val": splits["train"][is_val], "train": splits["train"][~is_val]}
    return replace(catalogue, splits=splits)


def _indexed(catalogue: Catalogue, pictures: int) -> str:
    if not catalogue.has_views:
        return f"{pictures:,} pictures"
    return f"{pictures:,} pictures of {len(set(catalogue.products)):,} products"


def _heads(fit: _Fit) -> tuple[AttributeHeads, dict[str, HeadScore]]:
    """The heads of the catalogue's columns, trained or as a stopped fit left them."""
    width = fit.start.backbone.sizes.token_width
    config = HeadsConfig(token_width=width, columns=fit.plan.columns)
    kept = fit.out / "heads"
    if not kept.exists():
        heads, scores = fit_heads(
            fit.start.heads, config.columns, width, fit.part("train"), fit.part("dev"), fit.seed, fit.quiet
        )
        with whole_folder(kept) as draft:
            write_bytes(draft / "heads.safetensors", save(heads.state_dict()))
            write_json(draft / "scores.json", {column: vars(score) for column, score in scores.items()})
    heads = AttributeHeads(config)
    heads.load_state_dict(load_file(kept / "heads.safetensors"))
    heads.to(fit.start.device)
    read = json.loads((kept / "scores.json").read_text(encoding="utf-8"))
    return heads.requires_grad_(False).eval(), {column: HeadScore(**score) for column, score in read.items()}


def _train(fit: _Fit, heads: AttributeHeads) -> ComposedModel:
    """The best model of the run; a finished run is not run again."""
    run = fit.out / "run"
    if (run / "done.json").exists():
        return read_model(run / "best")
    vocabularies = vocabularies_for(fit.plan.columns, fit.start.vocabularies)
    encoder = TextEncoder(fit.start.text_encoder.tokenizer, vocabularies, fit.start.text_encoder.max_length)
    names = [vocabulary.name for vocabulary in vocabularies]
    start = replace(fit.start, heads=heads, text_encoder=encoder)
    if not DqeValues.requires <= start.backbone.provides:
        # No reader of texts is trained: the heads name what a picture shows, and rules read the text.
        compares = DualValues.requires <= start.backbone.provides
        method = DualValues.name if compares else PredictedAttributes.name
        fitted = start.with_method(method, {"attributes": names})
        return read_model(fitted.save_pretrained(run / "best"))
    model = model_for(fit.recipe, start, {**fit.recipe.options, "attributes": names}, fit.seed)
    assert isinstance(model.method, DqeValues)
    if isinstance(fit.start.method, DqeValues):
        warm_start(model.method, fit.start.method)
    settings = fit.recipe.triplets
    training = _benchmark(fit, model, "train", settings.count, settings.per_reference)
    if fit.plan.numbers:
        spoken = Comparatives(list(fit.plan.numbers))
        numbers = fit.numbers("train")
        training = with_comparatives(training, numbers, spoken, COMPARED, fit.seed, answered=False)
    dev = _benchmark(fit, model, "dev", MOST_QUESTIONS, 2)
    part = training, fit.store(training.image_paths)
    evaluator = Evaluator.on(dev, fit.store(dev.image_paths))
    build_trainer(fit.recipe, model, [part], evaluator, run, quiet=fit.quiet).fit()
    return read_model(run / "best")


def _benchmark(
    fit: _Fit, model: ComposedModel, split: str, most: int | None, per_reference: int
) -> Benchmark:
    """The questions of a split, at most ``most``: ``per_reference`` an image, to measure one a product."""
    catalogue = fit.plan.catalogue
    images = catalogue.split(split)
    wanted = per_reference * (len(images) if split == "train" else catalogue.count_products(images))
    return catalogue_benchmark(
        fit.plan.catalogue,
        split,
        seed=fit.seed,
        count=wanted if most is None else min(wanted, most),
        drawing=fit.recipe.triplets.drawing,
        wording="evaluation" if split == "val" else "train",
        max_changes=fit.recipe.triplets.max_changes,
        vocabularies=model.vocabularies,
        name=fit.folder.resolve().name,
    )


def _measure(
    fit: _Fit, fitted: ComposedModel, before: ComposedModel
) -> tuple[dict[str, dict[str, float]], dict[str, float], RetrievalResults, TokenStore]:
    """Rows of metrics on val, recall by the column asked of, and the results of the fitted model."""
    benchmark = _benchmark(fit, fitted, "val", MOST_QUESTIONS, 2)
    store = fit.store(benchmark.image_paths)
    results = evaluate(fitted.method, store, fitted.text_encoder, benchmark)
    rows = {"the fitted model": summarise(results)}
    rows["the model before"] = summarise(evaluate(before.method, store, before.text_encoder, benchmark))
    names = [vocabulary.name for vocabulary in fitted.vocabularies]
    predicted = fitted.with_method(PredictedAttributes.name, {"attributes": names})
    rows["predicted attributes"] = summarise(
        evaluate(predicted.method, store, predicted.text_encoder, benchmark)
    )
    rows |= baseline_rows(fitted, store, benchmark)
    if fit.plan.numbers:
        spoken, numbers = Comparatives(list(fit.plan.numbers)), fit.numbers("val")
        compared = with_comparatives(benchmark, numbers, spoken, 1.0, fit.seed, answered=True)
        filtered = collect(compared, _filtered(fitted, store, compared, numbers))
        rows["numbers filtered"] = summarise(filtered)
    asks = {
        column: np.array([column in triplet.asked for triplet in benchmark.triplets])
        for column in fit.plan.columns
    }
    asked = recall_by_asked(results, {column: row for column, row in asks.items() if row.any()})
    return rows, asked, results, store


def _filtered(
    model: ComposedModel,
    store: TokenStore,
    benchmark: Benchmark,
    numbers: Mapping[str, NDArray[np.float64]],
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Scores of texts without their comparisons, what these do not admit ranked behind all else."""

    reader = ConstraintReader(list(numbers))

    def parted(question: Any) -> tuple[str, tuple[NumericConstraint, ...]]:
        return reader.parted(model.method.text(question.captions))

    chunks = query_scores(model.method, store, model.text_encoder, benchmark, lambda q: parted(q)[0])
    for category, questions, scores in chunks:
        gallery = benchmark.galleries[category]
        behind = float(scores.max() - scores.min()) + 1
        scores = scores.copy()
        for row, number in enumerate(questions):
            triplet = benchmark.triplets[number]
            for bound in parted(triplet)[1]:
                intent = Intent(bound.column, bound.direction)
                admitted = intent.admits(numbers[bound.column], triplet.reference)[gallery]
                scores[row, ~admitted] -= behind
        yield category, questions, scores


def _index(fit: _Fit, fitted: ComposedModel) -> int:
    """Index all pictures of the folder, unless this model has; returns how many there are."""
    retriever, place = ComposedRetriever(fitted), fit.out / "index"
    if place.exists():
        try:
            retriever.open_index(place)
        except EngineError:
            retriever.index = None
    if retriever.index is None:
        # Of the store that training read, where it is of the kind that indexes read.
        tokens = fit.out / TOKENS if fit.recipe.training.tokens == "fp16" else None
        summary = retriever.build_index(fit.folder, place, quiet=fit.quiet, tokens=tokens, sheet=fit.sheet)
        for refusal in summary.refusals:
            console.print(escape(f"left out {refusal.path}: {refusal.reason}"))
    assert retriever.index is not None
    return len(retriever.index)
