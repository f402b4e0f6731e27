"""The recipe of a comparison: methods, questions and budgets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from dqecir.settings import Strict, parse_settings, read_settings
from dqecir.training.recipe import Recipe, read_recipe

Budget = Literal["steps", "operations"]


def slug(title: str) -> str:
    """Return a title as a file name without suffix: lower case, with hyphens between words."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-")


class Contestant(Strict):
    """A method in a comparison, with one training recipe or several, trained one after the other (stages)."""

    title: str
    recipes: tuple[str, ...] = Field(min_length=1)
    """File names in the parent of the comparison's folder; each stage starts from the weights of the previous
    one, and gets an equal share of the budget."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the last stage that replace those of its recipe, for this catalogue or an ablation."""
    negatives: dict[str, Any] = Field(default_factory=dict)
    """Settings of the last stage's negatives that replace those of its recipe, for an ablation."""
    refreshes: int | None = Field(default=None, ge=0)
    """Number of refreshes of the negatives, for an ablation. Default: that of the comparison."""
    batch_size: int | None = Field(default=None, gt=1)
    """Batch size, to measure the effect of batches. Default: that of the comparison."""
    shuffled_targets: float = Field(default=0.0, ge=0, le=1)
    """Share of training triplets (0 to 1) that get a wrong target, to measure the effect of wrong labels."""


class Untrained(Strict):
    """A row that is not trained: a baseline method and its options."""

    method: str
    title: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, data: Any) -> Any:
        return {"method": data} if isinstance(data, str) else data

    @property
    def name(self) -> str:
        """Title of the row."""
        return self.title or self.method.replace("_", " ")


class RateSearch(Strict):
    """How learning rates are chosen on dev, in the same way for all contestants."""

    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Factors of the recipe's learning rate that are tried."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Length of each try, as a share of ``steps``."""
    questions: int = Field(default=800, gt=0)
    """Number of questions about the dev split."""
    seed: int = 1000


class ComparisonRecipe(Strict):
    """A comparison of all contestants with all seeds and all budgets, on one catalogue."""

    name: str
    gallery_column: str | None = None
    """Column whose values have a gallery each. Default: one gallery of all images."""
    columns: tuple[str, ...] | None = None
    """Columns of the catalogue that are used. Default: all. Fewer columns mean more right answers."""
    heads: dict[str, str] = Field(default_factory=dict)
    """Column of the catalogue -> the attribute head of the model that predicts it, where the names differ."""
    max_changes: int = Field(default=3, gt=0)
    """Largest number of attributes that one question changes."""
    frozen: str | None = None
    """Required checksum of the questions (``Benchmark.checksum``), so that they cannot change unnoticed."""
    triplets: int = Field(default=9000, gt=1)
    """Number of training triplets, the same for all contestants."""
    questions: int = Field(default=2000, gt=1)
    """Number of questions about the evaluation split; half of them have phrases that training never has."""
    confusable: int = Field(default=400, gt=0)
    """Number of pairs of questions that differ in one attribute value."""
    question_seed: int = 7
    """Random seed of the questions that all contestants are measured on."""
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = Field(default=200, gt=1)
    batch_size: int = Field(default=64, gt=1)
    refreshes: int = Field(default=3, ge=0)
    """Number of refreshes of a run's negatives, at equal intervals after the warm-up."""
    budgets: tuple[Budget, ...] = ("steps", "operations")
    reference: str
    """Title of the contestant whose operations in ``steps`` steps are the budget of all others."""
    search: RateSearch = RateSearch()
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    baselines: tuple[Untrained, ...] = (
        Untrained(method="image_only"),
        Untrained(method="text_only"),
        Untrained(method="image_plus_text"),
    )
    """Rows that are not trained: the name of a method, or its options too. If ``predicted_attributes`` is
    among them, two more rows rank by the exact log-probability instead of the inner product: with the
    texts as its parser reads them, and as a parser without errors would."""

    @model_validator(mode="after")
    def _titles_agree(self) -> ComparisonRecipe:
        titles = [contestant.title for contestant in self.contestants]
        if len({slug(title) for title in titles}) < len(titles):
            raise ValueError(
                "two contestants have the same title, or titles of the same letters and digits: give them "
                "different titles"
            )
        if self.reference not in titles:
            raise ValueError(f"the reference {self.reference!r} is not the title of a contestant: name one")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be one or more different numbers")
        return self

    def refreshes_of(self, title: str) -> int:
        """Return the number of refreshes of the negatives of the contestant with this title."""
        own = next(one.refreshes for one in self.contestants if one.title == title)
        return self.refreshes if own is None else own


def read_comparison(path: Path) -> ComparisonRecipe:
    """Read the recipe of a comparison; raises :class:`DataError` that says where the mistake is."""
    return read_settings(path, ComparisonRecipe)


def stages(recipe: ComparisonRecipe, contestant: Contestant, folder: Path) -> list[Recipe]:
    """Return the training recipes of a contestant, with the settings that all contestants share.

    ``folder`` is that of the comparison's recipe; training recipes are in its parent. Raises
    :class:`DataError` if one is missing or wrong.
    """
    found = []
    batch_size = contestant.batch_size or recipe.batch_size
    for place, name in enumerate(contestant.recipes):
        stage = read_recipe(folder.parent / name)
        if place == len(contestant.recipes) - 1 and (contestant.options or contestant.negatives):
            given = stage.model_dump()
            changed = {
                "options": {**given["options"], **contestant.options},
                "negatives": {**given["negatives"], **contestant.negatives},
            }
            stage = parse_settings({**given, **changed}, Recipe, f"the contestant {contestant.title!r}")
        triplets = stage.triplets.model_copy(
            update={"gallery_column": recipe.gallery_column, "count": recipe.triplets}
        )
        training = stage.training.model_copy(
            update={"batch_size": batch_size, "evaluate_every": 1e9, "views": 1, "warm_up_steps": 0}
        )
        found.append(stage.model_copy(update={"triplets": triplets, "training": training}))
    return found
