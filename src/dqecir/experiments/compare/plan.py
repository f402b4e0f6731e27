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
    """File names beside the comparison's folder; each stage starts from the weights of the one before
    and gets an equal share of the budget."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the last stage that this catalogue, or an ablation, needs otherwise."""
    negatives: dict[str, Any] = Field(default_factory=dict)
    """Settings of the last stage's negatives that an ablation needs otherwise."""
    refreshes: int | None = Field(default=None, ge=0)
    """How often its negatives are refreshed, where an ablation needs it otherwise than the rest."""
    shuffled_targets: float = Field(default=0.0, ge=0, le=1)
    """Share of the training triplets whose target is another triplet's: how wrong labels degrade it."""


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
        """Title of its row."""
        return self.title or self.method.replace("_", " ")


class RateSearch(Strict):
    """The search of a learning rate on dev, alike for all contestants."""

    factors: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Multiples of the learning rate that a contestant's recipe names."""
    share: float = Field(default=0.5, gt=0, le=1)
    """Length of a trial, as a share of the equal-steps runs."""
    questions: int = Field(default=800, gt=0)
    """Questions asked of the dev split."""
    seed: int = 1000


class ComparisonRecipe(Strict):
    """Contestants x seeds x budgets on one catalogue."""

    name: str
    gallery_column: str | None = None
    columns: tuple[str, ...] | None = None
    """Columns that describe the catalogue. Default: all of them. Fewer leave more right answers."""
    max_changes: int = Field(default=3, gt=0)
    """Attributes that a question changes at most."""
    frozen: str | None = None
    """Checksum that the questions must have (``Benchmark.checksum``), so that they cannot change unseen."""
    triplets: int = Field(default=9000, gt=1)
    """Training triplets, the same for all."""
    questions: int = Field(default=2000, gt=1)
    """Questions asked of the evaluation split, half of them in wordings that training never shows."""
    confusable: int = Field(default=400, gt=0)
    """Pairs of questions that differ in one attribute value."""
    question_seed: int = 7
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = Field(default=200, gt=1)
    batch_size: int = Field(default=64, gt=1)
    refreshes: int = Field(default=3, ge=0)
    """How often a run's mined negatives are refreshed, at equal distances after the warm-up."""
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
        """Return how often the mined negatives of the contestant of this title are refreshed."""
        own = next(one.refreshes for one in self.contestants if one.title == title)
        return self.refreshes if own is None else own


def read_comparison(path: Path) -> ComparisonRecipe:
    """Read a comparison recipe; raises :class:`DataError` with a sentence for each mistake."""
    return read_settings(path, ComparisonRecipe)


def stages(recipe: ComparisonRecipe, contestant: Contestant, folder: Path) -> list[Recipe]:
    """Return the training recipes of a contestant, with what the comparison decides for all.

    ``folder`` holds the comparison's file; training recipes lie in the folder above it. Raises
    :class:`DataError` for one that is missing or wrong.
    """
    found = []
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
            update={"batch_size": recipe.batch_size, "evaluate_every": 1e9, "views": 1, "warm_up_steps": 0}
        )
        found.append(stage.model_copy(update={"triplets": triplets, "training": training}))
    return found
