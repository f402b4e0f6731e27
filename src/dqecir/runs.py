"""Whole runs over catalogues: what the commands and the benchmarks call."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from dqecir.backbones.store import JoinedStore, Store, TokenStore
from dqecir.backbones.store.precision import PrecisionName
from dqecir.data.annotations import Questions
from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.composing import catalogue_benchmark
from dqecir.data.pairs import Drawing
from dqecir.data.triplets import Benchmark, DataError, join_benchmarks
from dqecir.evaluation.evaluate import Wording, evaluate, query_scores
from dqecir.evaluation.metrics import summarise
from dqecir.evaluation.protocols import Protocol, protocol_named
from dqecir.evaluation.submission import rank_questions, write_submissions
from dqecir.evaluation.table import baseline_rows, oracle_rows
from dqecir.methods.method import Method, method_named
from dqecir.model import ComposedModel
from dqecir.recipe import Recipe
from dqecir.training import Trainer, on_cpu
from dqecir.training_data import TrainingData


def store_of(
    model: ComposedModel,
    benchmark: Benchmark | Questions,
    folder: Path,
    views: int = 1,
    quiet: bool = False,
    precision: PrecisionName = "fp16",
) -> TokenStore:
    """The image tokens of a benchmark under ``model``'s tower, kept in ``folder``."""
    return TokenStore.build(
        folder,
        model.backbone.image_tokens,
        model.tower_fingerprint,
        model.preprocessing,
        benchmark.image_paths,
        views,
        quiet,
        precision,
    )


def trainer_for(
    recipe: Recipe,
    folders: Sequence[Path],
    model_folder: Path | None,
    run: Path,
    tokens: Path | None = None,
    quiet: bool = False,
) -> Trainer:
    """A trainer by ``recipe`` on the train split of catalogues; ``dev`` chooses the best checkpoint.

    ``tokens`` is where image tokens are kept, for runs that share them; the run's own folder unless
    named. ``Trainer.fit`` runs it, or resumes it.
    """
    start = ComposedModel.from_pretrained(model_folder)
    catalogues = [read_catalogue(folder) for folder in folders]
    model = start.with_method(recipe.method, _options_for(recipe, start, catalogues))
    kept = tokens or run / "tokens"
    training: list[Benchmark] = []
    dev: list[Benchmark] = []
    training_stores: list[TokenStore] = []
    dev_stores: list[TokenStore] = []
    for place, (folder, catalogue) in enumerate(zip(folders, catalogues, strict=True)):
        settings = recipe.triplets
        column = settings.gallery_column if settings.gallery_column in catalogue.attributes else None
        for split, benchmarks, stores in (
            (settings.split, training, training_stores),
            ("dev", dev, dev_stores),
        ):
            is_dev = split == "dev"
            benchmark = catalogue_benchmark(
                catalogue,
                split,
                seed=settings.seed + is_dev,
                count=None if is_dev else settings.count,
                per_reference=2 if is_dev else settings.per_reference,
                drawing=settings.drawing,
                max_changes=settings.max_changes,
                gallery_column=column,
                name=f"{place}-{folder.name}",
            )
            views = 1 if is_dev else recipe.training.views
            benchmarks.append(benchmark)
            # Of several processes one encodes, and the others then only open what it wrote.
            with PartialState(cpu=on_cpu()).main_process_first():
                stores.append(
                    store_of(
                        model, benchmark, kept / f"{place}-{split}", views, quiet, recipe.training.tokens
                    )
                )
    data = TrainingData.of(
        join_benchmarks(training),
        JoinedStore.of(training_stores),
        model.text_encoder,
        model.method,
        model.heads.config.columns if model.heads is not None else None,
    )
    return Trainer(
        recipe,
        model,
        data,
        (join_benchmarks(dev), JoinedStore.of(dev_stores)),
        run,
        [len(benchmark.triplets) for benchmark in training],
        quiet,
    )


def _options_for(recipe: Recipe, model: ComposedModel, catalogues: Sequence[Catalogue]) -> dict[str, Any]:
    """The recipe's options; a method that compares columns compares those that a catalogue has.

    Heads that were trained on other catalogues know further columns, and would only guess at them.
    """
    named = "columns" in recipe.options
    if named or model.heads is None or "columns" not in method_named(recipe.method).options_type.model_fields:
        return dict(recipe.options)
    had = {column for catalogue in catalogues for column in catalogue.attributes}
    columns = [column for column in model.heads.config.columns if column in had]
    if not columns:
        raise DataError(
            f"the model has attribute heads for {', '.join(model.heads.config.columns)}, and the "
            "catalogue has none of these columns: rename its columns, or pretrain a model on it"
        )
    return {**recipe.options, "columns": columns}


def wording_of(method: Method, protocol: Protocol) -> Wording | None:
    """How a protocol's questions are worded; a method that words its own queries keeps to that."""
    return protocol.text if type(method).text is Method.text else None


def evaluate_on_protocol(
    folder: Path,
    name: str,
    split: str,
    model_folder: Path | None,
    *,
    images: Path | None = None,
    tokens: Path | None = None,
    quiet: bool = False,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of a model under a published protocol, by their published names; and facts of the run.

    ``folder`` is the data set as it is published, ``images`` where its pictures are if not there.
    """
    protocol = protocol_named(name)
    benchmark = protocol.benchmark(folder, split, images=images)
    model = ComposedModel.from_pretrained(model_folder)
    with tempfile.TemporaryDirectory() as work:
        store: Store = store_of(model, benchmark, tokens or Path(work) / "tokens", quiet=quiet)
        text = wording_of(model.method, protocol)
        metrics = protocol.summarise(
            evaluate(model.method, store, model.text_encoder, benchmark, text, protocol.kept)
        )
    facts = {
        "protocol": name,
        "source": protocol.source,
        "split": split,
        "queries": len(benchmark.triplets),
        "galleries": {name: len(gallery) for name, gallery in benchmark.galleries.items()},
        "mask_reference": protocol.mask_reference,
        "model": model.fingerprint,
    }
    return metrics, facts


def submit(
    folder: Path,
    name: str,
    split: str,
    model_folder: Path | None,
    out: Path,
    *,
    images: Path | None = None,
    tokens: Path | None = None,
    quiet: bool = False,
) -> list[Path]:
    """Rank a split whose answers are not published and write what its server takes; returns the files."""
    protocol = protocol_named(name)
    questions = protocol.questions(folder, split, images=images)
    model = ComposedModel.from_pretrained(model_folder)
    with tempfile.TemporaryDirectory() as work:
        store: Store = store_of(model, questions, tokens or Path(work) / "tokens", quiet=quiet)
        text = wording_of(model.method, protocol)
        scores = query_scores(model.method, store, model.text_encoder, questions, text)
        return write_submissions(out, rank_questions(questions, scores))


def evaluate_on_catalogue(
    folder: Path,
    split: str,
    model_folder: Path | None,
    *,
    gallery_column: str | None = None,
    per_reference: int = 2,
    count: int | None = None,
    drawing: Drawing = "balanced",
    seed: int = 0,
    tokens: Path | None = None,
    quiet: bool = False,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Metrics of a model, the baselines of its backbone, and the oracles; and facts of the run."""
    model = ComposedModel.from_pretrained(model_folder)
    benchmark = catalogue_benchmark(
        read_catalogue(folder),
        split,
        seed=seed,
        per_reference=per_reference,
        count=count,
        drawing=drawing,
        wording="evaluation",
        gallery_column=gallery_column,
        name=folder.name,
    )
    with tempfile.TemporaryDirectory() as work:
        store: Store = store_of(model, benchmark, tokens or Path(work) / "tokens", quiet=quiet)
        rows = {model.method.name: summarise(evaluate(model.method, store, model.text_encoder, benchmark))}
        rows |= baseline_rows(model, store, benchmark)
    facts = {
        "data": folder.name,
        "split": split,
        "drawing": drawing,
        "seed": seed,
        "queries": len(benchmark.triplets),
        "unseen_wordings": sum(triplet.unseen_wording for triplet in benchmark.triplets),
        "galleries": {name: len(gallery) for name, gallery in benchmark.galleries.items()},
        "mask_reference": benchmark.mask_reference,
        "model": model.fingerprint,
    }
    return rows | oracle_rows(benchmark), facts
