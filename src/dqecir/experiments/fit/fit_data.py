"""The shared data of a fit's steps: its catalogue, tokens, and questions for training and measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.experiments.fit.column_use import ColumnPlan
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.composing import catalogue_benchmark
from dqecir.training.data import attribute_codes
from dqecir.training.recipe import Recipe

LEAST_QUESTIONS, MOST_QUESTIONS = 500, 2000
"""Least and largest number of questions for measuring, if the split offers as many."""
TOKENS = "tokens"
"""The folder of image tokens within a fit's folder."""


@dataclass(frozen=True)
class FitData:
    """The planned catalogue of a fit, and the fit's folder."""

    folder: Path
    out: Path
    recipe: Recipe
    seed: int
    quiet: bool
    plan: ColumnPlan
    start: ComposedModel
    sheet: str | None

    def store(self, paths: tuple[Path, ...]) -> TokenStore:
        """Return the tokens of pictures, which are stored in one folder."""
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
        """Return a split's tokens, and the codes of its attributes."""
        images = self.plan.catalogue.split(split)
        paths = tuple(self.plan.catalogue.image_paths[image] for image in images)
        given = {c: [cells[i] for i in images] for c, cells in self.plan.catalogue.attributes.items()}
        return self.store(paths), attribute_codes(given, len(images), self.plan.columns)

    def numbers(self, split: str) -> dict[str, NDArray[np.float64]]:
        """Return column -> numbers of a split's images."""
        images = self.plan.catalogue.split(split)
        return {column: values[images] for column, values in self.plan.numbers.items()}

    def training_questions(self, model: ComposedModel) -> Benchmark:
        """Draw questions of train, as many as the recipe says."""
        settings = self.recipe.triplets
        wanted = settings.per_reference * len(self.plan.catalogue.split("train"))
        return self._questions(
            model, "train", wanted if settings.count is None else min(wanted, settings.count)
        )

    def measuring_questions(self, model: ComposedModel, split: str) -> Benchmark:
        """Return questions about a split: two for each product, and at most ``MOST_QUESTIONS``.

        For a few products there are more: ``LEAST_QUESTIONS``, or all that the split offers.
        """
        catalogue = self.plan.catalogue
        wanted = 2 * catalogue.count_products(catalogue.split(split))
        return self._questions(model, split, min(max(wanted, LEAST_QUESTIONS), MOST_QUESTIONS))

    def _questions(self, model: ComposedModel, split: str, count: int) -> Benchmark:
        return catalogue_benchmark(
            self.plan.catalogue,
            split,
            seed=self.seed,
            count=count,
            drawing=self.recipe.triplets.drawing,
            wording="evaluation" if split == "val" else "train",
            max_changes=self.recipe.triplets.max_changes,
            vocabularies=model.vocabularies,
            name=self.folder.resolve().name,
        )
