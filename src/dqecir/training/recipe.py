"""Recipes: one YAML a run, every key checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2Config
from dqecir.methods.method import MethodOptions, method_named
from dqecir.methods.negatives import NegativeSampling
from dqecir.settings import Strict, parse_settings, read_settings
from dqecir.training.schedules import WITH_FINAL_RATE, WITH_WARM_UP, CosineSchedule, Schedule


class Implied(Strict):
    """A value of a table's column that implies a value of a model's column."""

    column: str
    """Column of the table."""
    values: Mapping[str, str]
    """Its value -> the model's value. What is not here implies nothing."""
    within: bool = False
    """The values are words that stand in the cell, in any case of letters; the first that does counts."""


class CatalogueSource(Strict):
    """The columns that pretraining reads of one catalogue."""

    columns: Mapping[str, str]
    """Column of the table -> the model's name of it. Columns of two tables that differ in their values need
    two names."""
    unknown_if_empty: tuple[str, ...] = ()
    """Columns of the table whose empty cells are unknown, instead of saying that nothing applies."""
    implied: Mapping[str, tuple[Implied, ...]] = {}
    """Column of the model -> what the table implies of it; the first that implies a value counts."""
    title: str | None = None
    """Column of texts, which are captions of the pictures beside those made from attributes."""
    views: int | None = Field(default=None, ge=1)
    """Random views kept of each picture for training on triplets. Default: as many as of the others."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures, drawn by the seed, that are not learned from but calibrate the heads."""


Sources = tuple[CatalogueSource, ...]


class SourcesFile(Strict):
    """Sources that several recipes share."""

    sources: Sources


class TripletSettings(Strict):
    """How a catalogue becomes triplets; see ``catalogue_benchmark``."""

    split: Literal["train", "train_all"] = "train"
    """``train_all`` adds dev to train, for a model that is to be shipped."""
    count: int | None = None
    per_reference: int = Field(default=4, gt=0)
    drawing: Literal["balanced", "natural"] = "balanced"
    max_changes: int = Field(default=3, ge=1, le=3)
    gallery_column: str | None = None
    seed: int = 0


class TrainingSettings(Strict):
    """The loop: length, rates, and what is kept."""

    epochs: float = Field(default=10.0, gt=0)
    steps: int | None = Field(default=None, gt=0)
    """Number of steps, in place of ``epochs``."""
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    new_parameters_factor: float = Field(default=1.0, gt=0)
    """Rate of the method's own parameters, as a multiple of the backbone's."""
    schedule: Schedule = CosineSchedule()
    """How the rate rises and falls."""
    final_rate: float = Field(default=0.0, ge=0, le=1)
    """Where a cosine schedule ends, as a share of the rate."""
    warm_up_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_everything: bool = False
    """Weight decay on vectors and scalars too, a learned temperature among them, as QuRe's code has it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's; published: 0.9 and 0.98 for SPRC."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's; published: 1e-7 for SPRC and CLIP4Cir."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    captions: Literal["fixed", "two_way", "four_way"] = "two_way"
    """``four_way`` also asks by either caption alone, as CLIP4Cir and SPRC train on FashionIQ."""
    views: int = Field(default=1, ge=1)
    """Random views kept of every training image, the picture itself among them."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    tokens: Literal["fp16", "int8"] = "fp16"
    """How the image tokens are kept; ``int8`` takes half the bytes."""
    tokens_on_device: float = Field(default=0.6, ge=0, le=1)
    """Share of an accelerator's free memory that stored tokens may take; they are read from disk where
    they do not fit."""
    seed: int = 0
    evaluate_every: float = Field(default=1.0, gt=0)
    """Epochs between evaluations on dev, which choose ``best``."""
    checkpoint_every: int = Field(default=200, gt=0)
    """Steps between states that a killed run resumes from."""

    @model_validator(mode="after")
    def _schedule_reads_its_settings(self) -> TrainingSettings:
        kind = self.schedule.kind
        if self.warm_up_steps and kind not in WITH_WARM_UP:
            raise ValueError(f"the schedule {kind} ignores warm_up_steps: leave warm_up_steps out")
        if self.final_rate and kind not in WITH_FINAL_RATE:
            raise ValueError(f"the schedule {kind} ignores final_rate: leave final_rate out")
        return self


class Recipe(Strict):
    """A training run of one method."""

    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    sources: Sources | str | None = None
    """The sources, in the order of ``--data``, or the name of a file with them in the recipe's folder.
    The held out pictures are ``dev`` then. Default: all columns of all."""
    negatives: NegativeSampling = NegativeSampling()
    triplets: TripletSettings = TripletSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _method_agrees(self) -> Recipe:
        self.method_options.check_negatives(self.negatives)
        return self

    @property
    def method_options(self) -> MethodOptions:
        """The options, checked by the method they belong to."""
        return parse_settings(
            self.options, method_named(self.method).options_type, f"options of {self.method}"
        )

    def with_training(self, **changes: Any) -> Recipe:
        """Return this recipe with other settings of the loop."""
        training = TrainingSettings.model_validate({**self.training.model_dump(), **changes})
        return self.model_copy(update={"training": training})


class ClassificationStage(Strict):
    """Stage 0 of pretraining: the tower learns the attributes by classification."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    shares: tuple[float, ...] = (1.0,)
    """Share of each catalogue in a batch, in the order of ``--data``."""
    strengths: tuple[float, ...] = (1.0,)
    """Strength of the random views of each catalogue."""
    light: float | None = Field(default=None, ge=0)
    """Strength of the views' changes of light and colour. Default: that of the catalogue's views."""
    heads_factor: float = Field(default=1.0, gt=0)
    """Rate of what an ``efficientnet`` adds to the published network, as a multiple of the network's."""
    small_steps: int = Field(default=0, ge=0)
    """First steps, which see the pictures at ``small_size``: a step costs less then."""
    small_size: int = Field(default=0, ge=0)
    frozen_tower: bool = False
    """Whether the tower stays as its weights are, so that the heads alone learn."""
    mixup: float = Field(default=0.0, ge=0)
    """Both parameters of the beta distribution by which pictures are mixed in pairs (arXiv 1710.09412).
    0: none is."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the weights' moving average over the second half, which is kept. 0: the last weights are."""
    replicas: int = Field(default=1, ge=1)
    """Parts of a batch that are learned from side by side, a thread each; each normalises by itself."""


class ContrastStage(Strict):
    """Stage 1 of pretraining: the Q-Former learns images and captions made from the attributes."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=128, gt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    views: tuple[int, ...] = (1,)
    """Random views kept of each catalogue's images, the picture itself among them."""
    shares: tuple[float, ...] = (1.0,)
    """Share of the batches that come from each catalogue; a batch stays within one."""


class PretrainingRecipe(Strict):
    """A small BLIP-2, from scratch or with a tower that has published weights."""

    backbone: Blip2Config
    tower_weights: str | None = None
    """Published weights of the tower. Of an ``efficientnet`` a file, or an installed package that holds one;
    of ``transformers`` a hub name or a folder. Default: none."""
    preprocessing: Preprocessing
    sources: Sources | str | None = None
    """The sources, in the order of ``--data``, or the name of a file with them in the recipe's folder.
    Default: all columns of all."""
    vocabulary_size: int = Field(default=1500, gt=64)
    max_text_length: int = Field(default=40, gt=4)
    classification: ClassificationStage
    contrast: ContrastStage
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    seed: int = 0

    @model_validator(mode="after")
    def _sizes_agree(self) -> PretrainingRecipe:
        if self.preprocessing.size != self.backbone.tower.image_size:
            raise ValueError(
                f"preprocessing.size ({self.preprocessing.size}) must be the tower's image_size "
                f"({self.backbone.tower.image_size})"
            )
        kind = self.backbone.tower.kind
        if self.tower_weights is not None and kind not in ("efficientnet", "transformers"):
            raise ValueError("tower_weights are for a tower of the kind efficientnet or transformers")
        if self.tower_weights is None and (kind == "transformers" or self.classification.frozen_tower):
            raise ValueError(
                "a tower of the kind transformers, or one that stays frozen, needs tower_weights: name a hub "
                "name, a folder or a package"
            )
        return self


AnyRecipe = TypeVar("AnyRecipe", Recipe, PretrainingRecipe)


def read_recipe(path: Path) -> Recipe:
    """Read a training recipe; raises ``DataError`` with a sentence for each mistake."""
    return _with_sources(read_settings(path, Recipe), path)


def read_pretraining_recipe(path: Path) -> PretrainingRecipe:
    """Read a pretraining recipe; raises ``DataError`` with a sentence for each mistake."""
    return _with_sources(read_settings(path, PretrainingRecipe), path)


def _with_sources(recipe: AnyRecipe, path: Path) -> AnyRecipe:
    """Read the sources of a recipe in a file of their own."""
    if not isinstance(recipe.sources, str):
        return recipe
    read = read_settings(path.parent / recipe.sources, SourcesFile)
    return recipe.model_copy(update={"sources": read.sources})
