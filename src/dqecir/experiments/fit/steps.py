"""The steps of a fit: check, encode, learn columns, train, measure, index and report."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path

import numpy as np
from rich.markup import escape
from safetensors.torch import load_file, save

from dqecir.data.catalogue import Catalogue, check_catalogue, read_catalogue
from dqecir.data.catalogue_table import find_table
from dqecir.data.images import load_image
from dqecir.data.triplets import Benchmark
from dqecir.errors import CatalogueError, DataError, EngineError, about_warnings, counted
from dqecir.experiments.examples import answer_of, drawn_questions
from dqecir.experiments.fit.column_use import plan_columns
from dqecir.experiments.fit.fit_data import TOKENS, FitData
from dqecir.experiments.fit.fit_report import QUESTIONS, SHOWN_ANSWERS, Findings, write_reports
from dqecir.experiments.fit.gain import measure
from dqecir.index.contract import Index
from dqecir.io.files import whole_folder, write_bytes, write_json
from dqecir.io.progress import console
from dqecir.io.run_folder import claim
from dqecir.language.own_words import vocabularies_for
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig, TextEncoder
from dqecir.methods.dqe_values import DqeValues
from dqecir.methods.dual_values import DualValues
from dqecir.methods.predicted_attributes import PredictedAttributes
from dqecir.methods.value_vectors import MOST_NUMBERS
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.questions.comparatives import Comparatives, with_comparatives
from dqecir.search.engine import SearchEngine
from dqecir.search.retriever import ComposedRetriever
from dqecir.settings import Strict
from dqecir.training.build import build_trainer, model_for
from dqecir.training.heads import HeadScore, fit_heads, heads_of_columns, warm_start
from dqecir.training.loop import Evaluator
from dqecir.training.recipe import Recipe, read_recipe

FILE = "fit.json"
"""File with the settings of a fit; a fit with other settings cannot use its folder."""
MODEL = "model"
"""Sub-folder of a fit's folder with the chosen model."""
VAL_SHARE = 0.1
"""Share of train that is used for measuring if the table has neither val nor test."""
COMPARED = 0.25
"""Probability that a training question also compares a number, if the numbers of its images are known."""


class FitSettings(Strict):
    """The settings that a fit's folder stores: hash of the table, fingerprint of the model, recipe, seed."""

    table: str
    model: str
    recipe: Recipe
    seed: int


class StepTimes:
    """Prints each step when it begins, and measures how long it takes."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._seconds = quiet, dict[str, float]()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print ``name``, and measure the time of the ``with`` block."""
        if not self._quiet:
            console.print(f"[bold]{name}[/]")
        begun = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - begun

    def sentence(self) -> str:
        """Return a sentence with the seconds of all steps together, and of each."""
        steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self._seconds.items())
        return f"{sum(self._seconds.values()):.0f} s since it was last started: {steps}"


def fit_catalogue(
    folder: Path,
    out: Path,
    model: Path | str | None = None,
    recipe: Path | None = None,
    seed: int = 0,
    quiet: bool = False,
    sheet: str | None = None,
) -> dict[str, dict[str, float]]:
    """Fit a model to a catalogue: ``out`` gets ``report.html``, ``report.md``, ``model`` and ``index``.

    ``out/model`` is the fitted model if it was better on the measured questions, else the model before.
    ``model`` is what the fit starts from, as in :func:`read_model`. Default: the shipped model. ``recipe`` is
    a training recipe. Default: the one of the package. ``sheet`` names a sheet of the catalogue's workbook.
    Default: the first.

    Returns the rows of the report's table. An interrupted fit is resumed. Raises ``DataError`` that lists all
    problems of the catalogue, and if ``out`` holds another fit.
    """
    times = StepTimes(quiet)
    with times.step("checking the catalogue"):
        checked = check_catalogue(folder, decode=load_image, sheet=sheet, quiet=quiet)
    if checked.problems:
        raise CatalogueError(folder, checked.problems)
    if checked.warnings and not quiet:
        console.print(escape(about_warnings(checked.warnings, folder)))
    start = read_model(model)
    settings = read_recipe(recipe) if recipe is not None else _shipped_recipe()
    if settings.method != DqeValues.name:
        raise DataError(
            f"a catalogue is fitted by {DqeValues.name}, but the recipe is for {settings.method}: name a "
            f"recipe for {DqeValues.name} with --recipe"
        )
    _claim(folder, out, start, settings, seed, sheet)
    known = start.heads.config.columns if start.heads is not None else {}
    catalogue = with_val(read_catalogue(folder, seed, sheet), seed)
    # With the rule dot, a column may have more values than an embedding has numbers.
    one_vector = settings.options.get("rule") == "dot"
    plan = plan_columns(catalogue, known, MOST_NUMBERS if one_vector else start.backbone.sizes.embedding)
    data = FitData(folder, out, settings, seed, quiet, plan, start, sheet)
    with times.step("encoding the pictures"):
        data.store(catalogue.image_paths)
    with times.step("learning the columns"):
        heads, scores = _heads(data)
        data, heads = without_unshown(data, heads, scores)
    for use in data.plan.uses:
        console.print(escape(f"column {use.column}: {use.kind}: {use.note}"))
    with times.step("training"):
        fitted = _train(data, heads)
    with times.step("measuring"):
        measured = measure(data, fitted, read_model(model))
        measured.chosen.save_pretrained(out / MODEL)
    with times.step("building the index"):
        index = _index(data, measured.chosen)
    with times.step("writing the report"):
        reader = SearchEngine(measured.chosen, index).reader
        findings = Findings(
            measured,
            data.plan.uses,
            *reader.searched_columns(),
            {column: scores[column] for column in data.plan.columns},
            {"index": _indexed(catalogue, len(index)), "time": times.sentence()},
            _search_command(out, measured.results.benchmark),
        )
        record = {"rows": measured.rows, "asked": measured.asked, "gain": asdict(measured.gain)}
        write_json(out / "metrics.json", record)
        answers = [
            answer_of(measured.chosen, measured.store, measured.results, number, SHOWN_ANSWERS)
            for number in drawn_questions(measured.results.benchmark, QUESTIONS, seed)
        ]
        report = write_reports(out, folder.resolve().name, findings, answers)
    console.print(escape(f"\n{findings.verdict}\n"))
    console.print(
        f"The report is at [bold]{escape(str(report))}[/]. Search now:\n  {escape(findings.command)}"
    )
    return measured.rows


def _shipped_recipe() -> Recipe:
    with resources.as_file(resources.files("dqecir") / "assets" / "recipes" / "fit.yaml") as path:
        return read_recipe(path)


def _claim(
    folder: Path, out: Path, start: ComposedModel, recipe: Recipe, seed: int, sheet: str | None
) -> None:
    """Store the settings of this fit in ``out``; raises :class:`DataError` if it holds another fit."""
    if not (out / FILE).exists() and out.exists() and any(out.iterdir()):
        raise DataError(f"{out} holds files that are not a fit: name another --out")
    file = find_table(folder)
    assert file is not None  # The catalogue was checked before.
    table = hashlib.sha256(file.read_bytes() + (sheet or "").encode()).hexdigest()
    claim(out, FILE, FitSettings(table=table, model=start.fingerprint, recipe=recipe, seed=seed), "fit")


def with_val(catalogue: Catalogue, seed: int) -> Catalogue:
    """Return the catalogue with a val split: its own, else the images of test, else a random part of train.

    ``seed`` draws that part, a tenth; images of one set, and of one product, stay together.
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
        return counted(pictures, "picture")
    return f"{counted(pictures, 'picture')} of {counted(len(set(catalogue.products)), 'product')}"


def _heads(data: FitData) -> tuple[AttributeHeads, dict[str, HeadScore]]:
    """Return attribute heads for the catalogue's columns and their scores.

    An earlier run may have trained them.
    """
    width = data.start.backbone.sizes.token_width
    config = HeadsConfig(token_width=width, columns=data.plan.columns)
    kept = data.out / "heads"
    if not kept.exists():
        heads, scores = fit_heads(
            data.start.heads,
            config.columns,
            width,
            data.part("train"),
            data.part("dev"),
            data.seed,
            data.quiet,
        )
        with whole_folder(kept) as draft:
            write_bytes(draft / "heads.safetensors", save(heads.state_dict()))
            write_json(draft / "scores.json", {column: vars(score) for column, score in scores.items()})
    heads = AttributeHeads(config)
    heads.load_state_dict(load_file(kept / "heads.safetensors"))
    heads.to(data.start.device)
    read = json.loads((kept / "scores.json").read_text(encoding="utf-8"))
    return heads.requires_grad_(False).eval(), {column: HeadScore(**score) for column, score in read.items()}


def without_unshown(
    data: FitData, heads: AttributeHeads, scores: dict[str, HeadScore]
) -> tuple[FitData, AttributeHeads]:
    """Return data and heads without the columns that pictures do not show.

    These are columns whose head is no better than always predicting the commonest value, by ``scores``. If no
    column would be left, all stay. Searches use the table's cells for columns that are left out.
    """
    shown = {column: values for column, values in heads.config.columns.items() if scores[column].is_shown}
    if not shown:
        return data, heads
    uses = tuple(
        replace(use, kind="left out", note=_unshown(scores[use.column]), values=())
        if use.column in scores and use.column not in shown
        else use
        for use in data.plan.uses
    )
    catalogue = data.plan.catalogue.with_columns(list(shown))
    return replace(data, plan=replace(data.plan, catalogue=catalogue, uses=uses)), heads_of_columns(
        heads, shown
    )


def _unshown(score: HeadScore) -> str:
    return (
        f"pictures say no more of it than its commonest value (right for {score.accuracy:.0f} % of unseen "
        f"pictures, the commonest value for {score.commonest:.0f} %)"
    )


def _train(data: FitData, heads: AttributeHeads) -> ComposedModel:
    """Train the model with the attribute heads ``heads``, unless that is finished; return the best one.

    With an encoder that ``dqe_values`` cannot use, nothing is trained: rules read the texts.
    """
    run = data.out / "run"
    if (run / "done.json").exists():
        return read_model(run / "best")
    vocabularies = vocabularies_for(data.plan.columns, data.start.vocabularies)
    encoder = TextEncoder(data.start.text_encoder.tokenizer, vocabularies, data.start.text_encoder.max_length)
    names = [vocabulary.name for vocabulary in vocabularies]
    start = replace(data.start, heads=heads, text_encoder=encoder)
    if not DqeValues.requires <= start.backbone.provides:
        # No reader of texts is trained: heads predict attributes, and rules read texts.
        compares = DualValues.requires <= start.backbone.provides
        method = DualValues.name if compares else PredictedAttributes.name
        fitted = start.with_method(method, {"attributes": names})
        return read_model(fitted.save_pretrained(run / "best"))
    model = model_for(data.recipe, start, {**data.recipe.options, "attributes": names}, data.seed)
    assert isinstance(model.method, DqeValues)
    if isinstance(data.start.method, DqeValues):
        warm_start(model.method, data.start.method)
    training = data.training_questions(model)
    if data.plan.numbers:
        spoken = Comparatives(list(data.plan.numbers))
        numbers = data.numbers("train")
        training = with_comparatives(training, numbers, spoken, COMPARED, data.seed, answered=False)
    dev = data.measuring_questions(model, "dev")
    part = training, data.store(training.image_paths)
    evaluator = Evaluator.on(dev, data.store(dev.image_paths))
    build_trainer(data.recipe, model, [part], evaluator, run, quiet=data.quiet).fit()
    return read_model(run / "best")


def _index(data: FitData, model: ComposedModel) -> Index:
    """Return the index of all pictures in the folder; it is built unless there is one of this model."""
    retriever, place = ComposedRetriever(model), data.out / "index"
    if place.exists():
        try:
            retriever.open_index(place)
        except EngineError:
            retriever.index = None
    if retriever.index is None:
        # Use the training's store if its precision is that of indexes.
        tokens = data.out / TOKENS if data.recipe.training.tokens == "fp16" else None
        summary = retriever.build_index(data.folder, place, quiet=data.quiet, tokens=tokens, sheet=data.sheet)
        for refusal in summary.refusals:
            console.print(escape(f"left out {refusal.path}: {refusal.reason}"))
    assert retriever.index is not None
    return retriever.index


def _search_command(out: Path, asked: Benchmark) -> str:
    """Return a command that searches the new index, to copy into a shell."""
    question = asked.triplets[0]
    return shlex.join(
        ["dqecir", "search", "--index", str(out / "index"), "--model", str(out / MODEL)]
        + ["--image", str(asked.image_paths[question.reference])]
        + ["--text", question.captions[0], "--sheet", "answer.png"]
    )
