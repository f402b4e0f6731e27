"""What all runs of a comparison share: recipes, encoder, questions, stored image tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.errors import DataError
from dqecir.experiments.compare.plan import ComparisonRecipe, stages
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.model.public_weights import read_model
from dqecir.questions.asking import folder_questions
from dqecir.questions.confusables import ConfusablePair, confusable_pairs
from dqecir.questions.paraphrases import paraphrases
from dqecir.questions.shuffling import with_shuffled_targets
from dqecir.training.build import build_trainer, model_for
from dqecir.training.loop import Evaluator, Trainer
from dqecir.training.recipe import Recipe


@dataclass(frozen=True)
class ComparisonContext:
    """The data of one comparison; each process makes a part when it first needs it.

    ``recipes`` is the folder of the comparison's recipe; ``train`` and ``evaluation`` are catalogue folders
    (often the same); ``model`` is a model folder, or None for the shipped model; all files are written to
    ``work``. Other processes get only these settings, and make the data themselves.
    """

    recipe: ComparisonRecipe
    recipes: Path
    train: Path
    evaluation: Path
    model: Path | str | None
    work: Path

    def __reduce__(self) -> tuple[Any, ...]:
        places = self.recipes, self.train, self.evaluation, self.model, self.work
        return _context_of, (self.recipe.model_dump_json(), *places)

    @cached_property
    def stages(self) -> dict[str, list[Recipe]]:
        """Title of a contestant -> its training recipes.

        Raises :class:`DataError` if one is missing or wrong.
        """
        return {one.title: stages(self.recipe, one, self.recipes) for one in self.recipe.contestants}

    @cached_property
    def training(self) -> Benchmark:
        """The training triplets."""
        return self._benchmark(self.train, "train", count=self.recipe.triplets)

    @cached_property
    def dev(self) -> Benchmark:
        """The questions about the dev split, with which learning rates are chosen."""
        return self._benchmark(self.train, "dev", seed=1, count=self.recipe.search.questions)

    @cached_property
    def questions(self) -> Benchmark:
        """The questions that all contestants are measured on, about images that are not trained on.

        Raises :class:`DataError` if the recipe has ``frozen``, and it is not their checksum.
        """
        questions = self._benchmark(
            self.evaluation,
            "val",
            seed=self.recipe.question_seed,
            count=self.recipe.questions,
            wording="evaluation",
        )
        if self.recipe.frozen is not None and questions.checksum != self.recipe.frozen:
            raise DataError(
                f"the questions of the comparison {self.recipe.name} are not the frozen ones: their "
                f"checksum is {questions.checksum}, not {self.recipe.frozen}; draw the catalogue as the "
                "recipe says, or remove frozen from the recipe to use other questions"
            )
        return questions

    def _benchmark(self, folder: Path, split: str, **drawing: Any) -> Benchmark:
        return folder_questions(
            folder,
            split,
            columns=self.recipe.columns,
            max_changes=self.recipe.max_changes,
            gallery_column=self.recipe.gallery_column,
            name=self.recipe.name,
            **drawing,
        )

    @cached_property
    def pairs(self) -> list[ConfusablePair]:
        """Pairs of questions about one reference whose targets differ in one attribute only.

        Empty if the questions have no true attributes.
        """
        if not self.questions.attributes:
            return []
        return confusable_pairs(self.questions, self.recipe.confusable, seed=self.recipe.question_seed)

    @cached_property
    def reworded(self) -> Benchmark:
        """Some of the questions, each in several wordings."""
        return paraphrases(self.questions, seed=self.recipe.question_seed)

    def store(self, benchmark: Benchmark, part: str) -> TokenStore:
        """Return the image tokens of a benchmark, which are stored in ``tokens/PART`` of ``work``."""
        return store_of(self.start(), benchmark, self.work / "tokens" / part, quiet=True)

    @cached_property
    def training_store(self) -> TokenStore:
        return self.store(self.training, "train")

    @cached_property
    def dev_store(self) -> TokenStore:
        return self.store(self.dev, "dev")

    @cached_property
    def question_store(self) -> TokenStore:
        return self.store(self.questions, "questions")

    def start(self) -> ComposedModel:
        """Return a new copy of the model from which every contestant starts."""
        return start_of(self.recipe, self.model)

    def trainer(self, title: str, stage: Recipe, start: Path | None, run: Path, with_dev: bool) -> Trainer:
        """Return the trainer of one stage of the contestant ``title``, which writes to the folder ``run``.

        ``start`` is the model folder of the previous stage. None: the model from which all contestants start.
        ``with_dev``: whether to evaluate on dev, to choose the best model.
        """
        model = model_for(stage, self.start() if start is None else read_model(start))
        evaluator = Evaluator.on(self.dev, self.dev_store) if with_dev else None
        share = next(one.shuffled_targets for one in self.recipe.contestants if one.title == title)
        benchmark = with_shuffled_targets(self.training, share, self.recipe.question_seed)
        return build_trainer(stage, model, [(benchmark, self.training_store)], evaluator, run, quiet=True)


def start_of(recipe: ComparisonRecipe, name: Path | str | None) -> ComposedModel:
    """Return the model ``name`` as :func:`read_model` does, with the heads under the names in ``recipe``.

    Raises :class:`DataError` if the model does not have a head that the recipe names.
    """
    model = read_model(name)
    if not recipe.heads or model.heads is None:
        return model
    return replace(model, heads=model.heads.renamed(recipe.heads))


@lru_cache(maxsize=1)
def _context_of(recipe: str, *places: Any) -> ComparisonContext:
    """Return the context for these settings in a worker process.

    It is cached for all jobs of a comparison.
    """
    return ComparisonContext(ComparisonRecipe.model_validate_json(recipe), *places)
