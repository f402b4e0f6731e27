"""What the steps of a fit share: its catalogue, image tokens, and questions for training and measuring."""

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
"""Smallest and largest number of questions for measuring, if the split has so many."""
TOKENS = "tokens"
"""Sub-folder of a fit's folder with the image tokens."""


@dataclass(frozen=True)
class FitData:
    """What a fit reads and where it writes.

    ``folder`` is the catalogue, ``sheet`` the sheet of its workbook (None: the first), and ``plan`` what its
    columns are used for. ``out`` is the folder of the fit, ``start`` the model before. ``quiet``: show no
    progress.
    """

    folder: Path
    out: Path
    recipe: Recipe
    seed: int
    quiet: bool
    plan: ColumnPlan
    start: ComposedModel
    sheet: str | None

    def store(self, paths: tuple[Path, ...]) -> TokenStore:
        """Return the image tokens of pictures; all are stored in one folder."""
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
        """Return the image tokens of a split, and the codes of its attributes [N, C]."""
        images = self.plan.catalogue.split(split)
        paths = tuple(self.plan.catalogue.image_paths[image] for image in images)
        given = {c: [cells[i] for i in images] for c, cells in self.plan.catalogue.attributes.items()}
        return self.store(paths), attribute_codes(given, len(images), self.plan.columns)

    def numbers(self, split: str) -> dict[str, NDArray[np.float64]]:
        """Return column -> the numbers of a split's images."""
        images = self.plan.catalogue.split(split)
        return {column: values[images] for column, values in self.plan.numbers.items()}

    def training_questions(self, model: ComposedModel) -> Benchmark:
        """Draw as many questions about train as the recipe says."""
        settings = self.recipe.triplets
        wanted = settings.per_reference * len(self.plan.catalogue.split("train"))
        return self._questions(
            model, "train", wanted if settings.count is None else min(wanted, settings.count)
        )

    def measuring_questions(self, model: ComposedModel, split: str) -> Benchmark:
        """Draw questions about a split: two for each product, and at most :data:`MOST_QUESTIONS`.

        If there are few products, there are at least :data:`LEAST_QUESTIONS`, or all that the split has.
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
