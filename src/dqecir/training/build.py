"""Build a trainer from a recipe and catalogues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.triplets import Benchmark, join_benchmarks
from dqecir.encoders.store import JoinedStore, TokenStore
from dqecir.errors import DataError
from dqecir.methods.method import method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.questions.composing import catalogue_benchmark
from dqecir.training.data import TrainingData
from dqecir.training.loop import Trainer, on_cpu
from dqecir.training.recipe import Recipe


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
