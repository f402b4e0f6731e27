"""Build a trainer from a recipe, a model, and triplets with stored images.

Every command that trains builds its trainer here. :func:`model_for` gives the model the recipe's method,
:func:`build_trainer` adds data, and :func:`trainer_for` does both for catalogues.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dqecir.data.catalogue import Catalogue, read_catalogue
from dqecir.data.own_triplets import has_triplets, read_triplets
from dqecir.data.triplets import Benchmark, join_benchmarks
from dqecir.encoders.store import JoinedStore, Store, TokenStore
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import QueryFormatter
from dqecir.methods.method import method_named
from dqecir.model.compose import learn_images
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.model.public_weights import read_model
from dqecir.questions.composing import catalogue_benchmark
from dqecir.settings import parse_settings
from dqecir.training.data import TrainingData
from dqecir.training.loop import Evaluator, Trainer
from dqecir.training.pretraining_data import HELD_OUT, as_sources
from dqecir.training.processes import processes
from dqecir.training.recipe import CatalogueSource, Recipe

Part = tuple[Benchmark, TokenStore]
"""A benchmark, and the stored image tokens of its images in the same order."""


def model_for(
    recipe: Recipe, start: ComposedModel, options: Mapping[str, Any] | None = None, seed: int | None = None
) -> ComposedModel:
    """Return a model with the encoder of ``start`` and the untrained method of ``recipe``.

    ``options`` are those of the method. Default: the recipe's. ``seed`` initialises new parameters. Default:
    the seed in the recipe. Raises :class:`DataError` if the method does not fit the model.
    """
    torch.manual_seed(recipe.training.seed if seed is None else seed)
    return start.with_method(recipe.method, recipe.options if options is None else options)


def build_trainer(
    recipe: Recipe,
    model: ComposedModel,
    training: Sequence[Part],
    evaluator: Evaluator | None,
    run: Path,
    text: QueryFormatter | None = None,
    quiet: bool = False,
) -> Trainer:
    """Return a trainer that writes to the folder ``run``; ``Trainer.fit`` runs or resumes it.

    ``model`` is the result of :func:`model_for`. All triplets of a batch come from one part of ``training``.
    Without an ``evaluator`` nothing is measured, and the last model counts as the best. ``text`` as in
    :meth:`TrainingData.of`.
    """
    data = TrainingData.of(*joined(training), model, text)
    learn_images(model.method, data.store)
    sizes = [len(benchmark.triplets) for benchmark, _ in training]
    return Trainer(recipe, model, data, evaluator, run, sizes, quiet)


def joined(parts: Sequence[Part]) -> tuple[Benchmark, Store]:
    """Join the benchmarks of several parts to one, and their stores to one."""
    benchmarks, stores = zip(*parts, strict=True)
    return join_benchmarks(benchmarks), JoinedStore.of(stores)


def trainer_for(
    recipe: Recipe,
    folders: Sequence[Path],
    model_folder: Path | str | None,
    run: Path,
    tokens: Path | None = None,
    quiet: bool = False,
) -> Trainer:
    """Return a trainer of ``recipe`` on the split that it names; ``dev`` chooses the best checkpoint.

    Each of ``folders`` is a catalogue, or has its own triplets. ``model_folder`` is the model to start from,
    as in :func:`read_model`; None: the shipped one. ``run`` is the folder to write to. ``tokens`` is the
    folder of image tokens, which several runs may share. Default: in ``run``. Raises :class:`DataError` if a
    folder or the model does not fit the recipe, or if a split has no picture.
    """
    start = read_model(model_folder)
    sources = _read(folders, recipe)
    had = {column for source in sources if isinstance(source, Catalogue) for column in source.attributes}
    model = model_for(recipe, start, _options_for(recipe, start, had))
    training: list[Part] = []
    dev: list[Part] = []
    for place, (folder, source) in enumerate(zip(folders, sources, strict=True)):
        for split, parts in ((recipe.triplets.split, training), ("dev", dev)):
            if recipe.sources is not None and isinstance(source, Catalogue) and not len(source.splits[split]):
                continue
            benchmark = _triplets(recipe, source, split, f"{place}-{folder.name}")
            views = _views(recipe, place) if parts is training else 1
            kept = (tokens or run / "tokens") / f"{place}-{split}"
            # If there are several processes, one encodes; the others wait, and then open the store.
            with processes().main_process_first():
                store = store_of(model, benchmark, kept, views, quiet, recipe.training.tokens)
            parts.append((benchmark, store))
    return build_trainer(recipe, model, training, Evaluator.on(*joined(dev)), run, quiet=quiet)


def _read(folders: Sequence[Path], recipe: Recipe) -> list[Catalogue | Path]:
    """Read the catalogue in each folder, as the recipe's sources describe it.

    With sources, only their columns stay, and their held-out pictures become the split ``dev``. Without
    sources, a folder that has its own triplets is returned as a path. Raises :class:`DataError` if the
    sources hold out no picture.
    """
    if recipe.sources is None:
        return [folder if has_triplets(folder) else read_catalogue(folder) for folder in folders]
    catalogues = [read_catalogue(folder) for folder in folders]
    found = as_sources(catalogues, recipe.sources, recipe.triplets.split, recipe.triplets.seed)
    if not any(len(each.splits[HELD_OUT]) for each in found):
        raise DataError(
            "the sources hold out no picture for dev, which chooses the best checkpoint: set held_out of one"
        )
    asked = recipe.options.get("columns")
    return [
        replace(
            each.with_columns([name for name in each.attributes if asked is None or name in asked]),
            splits={**each.splits, "dev": each.splits[HELD_OUT]},
        )
        for each in found
    ]


def _views(recipe: Recipe, place: int) -> int:
    """Return how many views of each picture of catalogue number ``place`` are stored."""
    source = recipe.sources[place] if recipe.sources is not None else None
    own = source.views if isinstance(source, CatalogueSource) else None
    return own or recipe.training.views


def _triplets(recipe: Recipe, source: Catalogue | Path, split: str, name: str) -> Benchmark:
    """Draw the triplets of a split of ``source`` as the recipe says, as a benchmark with the name ``name``.

    ``source`` is a catalogue, or a folder with its own triplets. In the dev split of a catalogue there are
    two triplets for each reference.
    """
    settings, is_dev = recipe.triplets, split == "dev"
    if isinstance(source, Path):
        return read_triplets(source, split, None if is_dev else settings.count, settings.seed, name)
    column = settings.gallery_column if settings.gallery_column in source.attributes else None
    return catalogue_benchmark(
        source,
        split,
        seed=settings.seed + is_dev,
        count=None if is_dev else settings.count,
        per_reference=2 if is_dev else settings.per_reference,
        drawing=settings.drawing,
        max_changes=settings.max_changes,
        gallery_column=column,
        name=name,
    )


def _options_for(recipe: Recipe, model: ComposedModel, had: Collection[str]) -> dict[str, Any]:
    """Return the method's options; a method that compares columns gets only the columns ``had``.

    ``had`` are the columns of the catalogues. Heads of other columns were trained on other catalogues, and
    would only guess. If there is no table, all columns that a vocabulary of the options knows are compared;
    columns in the recipe's options stay.
    Raises :class:`DataError` if the model has heads for none of the columns.
    """
    kind = method_named(recipe.method).options_type
    if "columns" in recipe.options or model.heads is None or "columns" not in kind.model_fields:
        return dict(recipe.options)
    spoken = model.vocabularies_of(parse_settings(recipe.options, kind, f"the options of {recipe.method}"))
    columns = [
        column
        for column in model.heads.config.columns
        if (not had or column in had) and any(one.column(column) is not None for one in spoken)
    ]
    if not columns:
        raise DataError(
            f"the model has attribute heads for {', '.join(model.heads.config.columns)}, and the "
            "catalogue has none of these columns: rename its columns, or pretrain a model on it"
        )
    return {**recipe.options, "columns": columns}
