"""Recipes: a YAML file for each run; all keys are checked before anything is computed."""

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
    """Its value -> the model's value. Other values imply nothing."""
    within: bool = False
    """Whether the values are words to find in the cell, ignoring case; the first that occurs counts."""


class CatalogueSource(Strict):
    """The columns of one catalogue for training."""

    columns: Mapping[str, str]
    """Column of the table -> its name in the model. Columns of two tables with different kinds of values need
    different names."""
    unknown_if_empty: tuple[str, ...] = ()
    """Columns of the table whose empty cells mean unknown instead of not applicable."""
    implied: Mapping[str, tuple[Implied, ...]] = {}
    """Column of the model -> rules that imply its value; the first that gives a value counts."""
    title: str | None = None
    """Column of texts that are captions of the pictures, besides captions made from attributes."""
    views: int | None = Field(default=None, ge=1)
    """Random views stored of each picture for training on triplets. Default: as many as of other
    catalogues."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures, drawn by the seed, that calibrate the heads and are not trained on."""


Sources = tuple[CatalogueSource, ...]


class SourcesFile(Strict):
    """Sources that several recipes share."""

    sources: Sources


class TripletSettings(Strict):
    """Settings for drawing triplets from a catalogue; see ``catalogue_benchmark``."""

    split: Literal["train", "train_all"] = "train"
    """``train_all`` adds dev to train, for a final model."""
    count: int | None = None
    per_reference: int = Field(default=4, gt=0)
    drawing: Literal["balanced", "natural"] = "balanced"
    max_changes: int = Field(default=3, ge=1, le=3)
    gallery_column: str | None = None
    seed: int = 0


class TrainingSettings(Strict):
    """Settings of the loop: length, rates, and storage."""

    epochs: float = Field(default=10.0, gt=0)
    steps: int | None = Field(default=None, gt=0)
    """Number of steps, instead of ``epochs``."""
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    new_parameters_factor: float = Field(default=1.0, gt=0)
    """Rate of the method's own parameters, as a multiple of the backbone's."""
    schedule: Schedule = CosineSchedule()
    """The schedule of the rate."""
    final_rate: float = Field(default=0.0, ge=0, le=1)
    """Final rate of a cosine schedule, as a share of the rate."""
    warm_up_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_everything: bool = False
    """Weight decay also on vectors and scalars, such as a learned temperature, as in QuRe's code."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's; published: 0.9 and 0.98 for SPRC."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's; published: 1e-7 for SPRC and CLIP4Cir."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    captions: Literal["fixed", "two_way", "four_way"] = "two_way"
    """``four_way`` also uses either caption alone, as CLIP4Cir and SPRC train on FashionIQ."""
    views: int = Field(default=1, ge=1)
    """Number of stored views of every training image, including the picture itself."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    tokens: Literal["fp16", "int8"] = "fp16"
    """Number type of stored image tokens; ``int8`` needs half the bytes."""
    tokens_on_device: float = Field(default=0.6, ge=0, le=1)
    """Share of an accelerator's free memory for stored tokens; if they do not fit, they are read from
    disk."""
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
    Their held-out pictures become ``dev``. Default: all columns of all catalogues."""
    negatives: NegativeSampling = NegativeSampling()
    triplets: TripletSettings = TripletSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _method_agrees(self) -> Recipe:
        self.method_options.check_negatives(self.negatives)
        return self

    @property
    def method_options(self) -> MethodOptions:
        """The options, checked by their method."""
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
    """Rate of the parameters that an ``efficientnet`` adds, as a multiple of the published network's."""
    small_steps: int = Field(default=0, ge=0)
    """Number of first steps with pictures of ``small_size``, which cost less."""
    small_size: int = Field(default=0, ge=0)
    frozen_tower: bool = False
    """Whether the tower is frozen, so that only the heads are trained."""
    mixup: float = Field(default=0.0, ge=0)
    """Both parameters of the beta distribution for mixing pairs of pictures (arXiv 1710.09412). 0: no
    mixing."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the weights' moving average over the second half, which is the result. 0: the last weights."""
    replicas: int = Field(default=1, ge=1)
    """Number of parts of a batch that are trained in parallel threads; each has its own batch statistics."""


class ContrastStage(Strict):
    """Stage 1 of pretraining: the Q-Former learns images and captions made from the attributes."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=128, gt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    views: tuple[int, ...] = (1,)
    """Number of stored views of each catalogue's images, including the picture itself."""
    shares: tuple[float, ...] = (1.0,)
    """Share of the batches of each catalogue; a batch is of one catalogue."""


class PretrainingRecipe(Strict):
    """The pretraining of a small BLIP-2, from scratch or with a tower of published weights."""

    backbone: Blip2Config
    tower_weights: str | None = None
    """Published weights of the tower. For ``efficientnet``: a file, or an installed package that contains
    one; for ``transformers``: a hub name or a folder. Default: none."""
    preprocessing: Preprocessing
    sources: Sources | str | None = None
    """The sources, in the order of ``--data``, or the name of a file with them in the recipe's folder.
    Default: all columns of all catalogues."""
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
            raise ValueError(
                "tower_weights need a tower of the kind efficientnet or transformers: leave them out"
            )
        if self.tower_weights is None and (kind == "transformers" or self.classification.frozen_tower):
            raise ValueError(
                "a tower of the kind transformers, or one that stays frozen, needs tower_weights: name a hub "
                "name, a folder or a package"
            )
        return self


AnyRecipe = TypeVar("AnyRecipe", Recipe, PretrainingRecipe)


def read_recipe(path: Path) -> Recipe:
    """Read a training recipe; raises ``DataError`` that names the mistake."""
    return _with_sources(read_settings(path, Recipe), path)


def read_pretraining_recipe(path: Path) -> PretrainingRecipe:
    """Read a pretraining recipe; raises ``DataError`` that names the mistake."""
    return _with_sources(read_settings(path, PretrainingRecipe), path)


def _with_sources(recipe: AnyRecipe, path: Path) -> AnyRecipe:
    """Read the sources of a recipe, if they are in another file."""
    if not isinstance(recipe.sources, str):
        return recipe
    read = read_settings(path.parent / recipe.sources, SourcesFile)
    return recipe.model_copy(update={"sources": read.sources})
