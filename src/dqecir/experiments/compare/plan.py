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
    """Return a title as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-")


class Contestant(Strict):
    """A method in a comparison: one training recipe, or several trained one after the other."""

    title: str
    recipes: tuple[str, ...] = Field(min_length=1)
    """File names in the parent of the comparison's folder; each stage starts from the weights of the previous
    stage and gets an equal share of the budget."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the last stage that differ from its recipe, for this catalogue or an ablation."""
    negatives: dict[str, Any] = Field(default_factory=dict)
    """Settings of the last stage's negatives that differ from its recipe, for an ablation."""
    refreshes: int | None = Field(default=None, ge=0)
    """Number of refreshes of its negatives, for an ablation. Default: that of the comparison."""
    batch_size: int | None = Field(default=None, gt=1)
    """Its batch size, to measure the effect of batches. Default: that of the comparison."""
    shuffled_targets: float = Field(default=0.0, ge=0, le=1)
    """Share of training triplets with a wrong target, to measure the effect of wrong labels."""


class Untrained(Strict):
    """A row that needs no training: a method that is a baseline, and its options."""

    method: str
    title: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, data: Any) -> Any:
        return {"method": data} if isinstance(data, str) else data

    @property
    def name(self) -> str:
        """The title of its row."""
        return self.title or self.method.replace("_", " ")


class RateSearch(Strict):
    """The search of a learning rate on dev, equal for all contestants."""

    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Factors of the learning rate of a contestant's recipe."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Length of a search run, as a share of the equal-steps runs."""
    questions: int = Field(default=800, gt=0)
    """Number of questions about the dev split."""
    seed: int = 1000


class ComparisonRecipe(Strict):
    """The recipe of a comparison: every contestant with every seed and every budget, on one catalogue."""

    name: str
    gallery_column: str | None = None
    """The column whose values have separate galleries. Default: one gallery of all images."""
    columns: tuple[str, ...] | None = None
    """Columns of the catalogue that are used. Default: all. Fewer columns give more right answers."""
    max_changes: int = Field(default=3, gt=0)
    """Most attributes that a question changes."""
    frozen: str | None = None
    """Required checksum of the questions (``Benchmark.checksum``), so that they cannot change unnoticed."""
    triplets: int = Field(default=9000, gt=1)
    """Number of training triplets, the same for all contestants."""
    questions: int = Field(default=2000, gt=1)
    """Number of questions about the evaluation split, half of them in phrases that training never shows."""
    confusable: int = Field(default=400, gt=0)
    """Number of pairs of questions that differ in one attribute value."""
    question_seed: int = 7
    """The random seed of the questions of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = Field(default=200, gt=1)
    batch_size: int = Field(default=64, gt=1)
    refreshes: int = Field(default=3, ge=0)
    """Number of refreshes of a run's mined negatives, at equal intervals after the warm-up."""
    budgets: tuple[Budget, ...] = ("steps", "operations")
    reference: str
    """Title of the contestant whose operations, in ``steps`` steps, are the budget of the others."""
    search: RateSearch = RateSearch()
    contestants: tuple[Contestant, ...] = Field(min_length=1)
    baselines: tuple[Untrained, ...] = (
        Untrained(method="image_only"),
        Untrained(method="text_only"),
        Untrained(method="image_plus_text"),
    )
    """Rows without training, a method's name or its options too; where ``predicted_attributes`` is
    among them, it is also ranked exactly, with its parser and with a perfect parse."""

    @model_validator(mode="after")
    def _titles_agree(self) -> ComparisonRecipe:
        titles = [contestant.title for contestant in self.contestants]
        if len({slug(title) for title in titles}) < len(titles):
            raise ValueError(
                "two contestants have the same title, or titles of the same letters and digits: give them "
                "different titles"
            )
        if self.reference not in titles:
            raise ValueError(f"the reference {self.reference!r} is not the title of a contestant")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            raise ValueError("seeds must be one or more different numbers")
        return self

    def refreshes_of(self, title: str) -> int:
        """Return the number of refreshes of the mined negatives of the contestant with this title."""
        own = next(one.refreshes for one in self.contestants if one.title == title)
        return self.refreshes if own is None else own


def read_comparison(path: Path) -> ComparisonRecipe:
    """Read a comparison recipe; raises :class:`DataError` that names the mistake."""
    return read_settings(path, ComparisonRecipe)


def stages(recipe: ComparisonRecipe, contestant: Contestant, folder: Path) -> list[Recipe]:
    """Return the training recipes of a contestant, with the comparison's common settings.

    ``folder`` holds the comparison's file; training recipes are in its parent folder. Raises
    :class:`DataError` for one that is missing or wrong.
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
