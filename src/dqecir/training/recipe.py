"""Recipes: one YAML file describes one run; all its keys are checked before anything is computed."""

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
    """A rule: some values of a table's column imply a value of a model's column."""

    column: str
    """Column of the table."""
    values: Mapping[str, str]
    """Value in the table -> value in the model. Other values imply nothing."""
    within: bool = False
    """Whether a key also counts if it is only a part of the cell, ignoring case; of several such keys, the
    first in ``values`` counts."""


class CatalogueSource(Strict):
    """Which columns of one catalogue are used for training, and how."""

    columns: Mapping[str, str]
    """Column of the table -> its name in the model. If the columns of two tables have different kinds of
    values, they need different names."""
    unknown_if_empty: tuple[str, ...] = ()
    """Columns of the table in which an empty cell means "unknown" and not "does not apply"."""
    implied: Mapping[str, tuple[Implied, ...]] = {}
    """Column of the model -> rules that imply its value; the first rule that gives a value counts."""
    title: str | None = None
    """Column of titles, which are used as captions besides those made from attributes. Default: none."""
    views: int | None = Field(default=None, ge=1)
    """Number of stored views of each picture, counting the picture itself, for training on triplets. Default:
    ``training.views`` of the recipe."""
    held_out: float = Field(default=0.0, ge=0, lt=1)
    """Share of the pictures (0 to 1), drawn with the seed, that calibrate the heads and are not trained
    on."""


Sources = tuple[CatalogueSource, ...]


class SourcesFile(Strict):
    """A file of sources, which several recipes share."""

    sources: Sources


class TripletSettings(Strict):
    """How triplets are drawn from a catalogue; see :func:`catalogue_benchmark`."""

    split: Literal["train", "train_all"] = "train"
    """Split to train on; ``train_all`` is train and dev together, for a final model."""
    count: int | None = None
    per_reference: int = Field(default=4, gt=0)
    drawing: Literal["balanced", "natural"] = "balanced"
    max_changes: int = Field(default=3, ge=1, le=3)
    gallery_column: str | None = None
    seed: int = 0


class TrainingSettings(Strict):
    """Settings of the training loop: length, rates, and storage."""

    epochs: float = Field(default=10.0, gt=0)
    steps: int | None = Field(default=None, gt=0)
    """Number of steps. Default: as many as ``epochs`` need."""
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    new_parameters_factor: float = Field(default=1.0, gt=0)
    """Learning rate of the method's own parameters, as a multiple of the backbone's."""
    schedule: Schedule = CosineSchedule()
    """How the learning rate changes over the run."""
    final_rate: float = Field(default=0.0, ge=0, le=1)
    """Last learning rate of a cosine schedule, as a share of ``learning_rate``."""
    warm_up_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_everything: bool = False
    """Whether vectors and scalars, such as a learned temperature, get weight decay too, as in QuRe's code."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas; published: 0.9 and 0.98 for SPRC."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon; published: 1e-7 for SPRC and CLIP4Cir."""
    gradient_clip: float | None = Field(default=1.0, gt=0)
    captions: Literal["fixed", "two_way", "four_way"] = "two_way"
    """Orders of the two captions: the given one, both, or also each caption alone (as CLIP4Cir and SPRC for
    FashionIQ)."""
    views: int = Field(default=1, ge=1)
    """Number of stored views of each training image, counting the picture itself."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    tokens: Literal["fp16", "int8"] = "fp16"
    """Number type of the stored image tokens; ``int8`` needs half the bytes of ``fp16``."""
    tokens_on_device: float = Field(default=0.6, ge=0, le=1)
    """Share (0 to 1) of a GPU's free memory that stored tokens may use; if they need more, they stay on
    disk."""
    seed: int = 0
    evaluate_every: float = Field(default=1.0, gt=0)
    """Number of epochs between two evaluations on dev, which choose the best model."""
    checkpoint_every: int = Field(default=200, gt=0)
    """Number of steps between two saved states, from which an interrupted run resumes."""

    @model_validator(mode="after")
    def _schedule_reads_its_settings(self) -> TrainingSettings:
        kind = self.schedule.kind
        if self.warm_up_steps and kind not in WITH_WARM_UP:
            raise ValueError(f"the schedule {kind} ignores warm_up_steps: leave warm_up_steps out")
        if self.final_rate and kind not in WITH_FINAL_RATE:
            raise ValueError(f"the schedule {kind} ignores final_rate: leave final_rate out")
        return self


class Recipe(Strict):
    """The recipe of a training run of one method."""

    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    sources: Sources | str | None = None
    """The sources, in the order of ``--data``, or the name of a file with them in the recipe's folder. Their
    held-out pictures become ``dev``. Default: all columns of all catalogues."""
    negatives: NegativeSampling = NegativeSampling()
    triplets: TripletSettings = TripletSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _method_agrees(self) -> Recipe:
        self.method_options.check_negatives(self.negatives)
        return self

    @property
    def method_options(self) -> MethodOptions:
        """The options as an object of the method's type.

        Raises ``ValueError`` for an unknown option or a bad value.
        """
        return parse_settings(
            self.options, method_named(self.method).options_type, f"options of {self.method}"
        )

    def with_training(self, **changes: Any) -> Recipe:
        """Return the recipe with other values of :class:`TrainingSettings`."""
        training = TrainingSettings.model_validate({**self.training.model_dump(), **changes})
        return self.model_copy(update={"training": training})


class ClassificationStage(Strict):
    """Stage 0 of pretraining: the tower learns to classify the attributes."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=64, gt=1)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    shares: tuple[float, ...] = (1.0,)
    """Share of each catalogue in a batch, in the order of ``--data``."""
    strengths: tuple[float, ...] = (1.0,)
    """Strength of the random changes in views of each catalogue, in the order of ``--data``; 1 is usual, 0
    means none."""
    light: float | None = Field(default=None, ge=0)
    """Strength of the changes of light and colour in random views. Default: that in ``strengths``."""
    heads_factor: float = Field(default=1.0, gt=0)
    """Learning rate of the parameters that are added to an ``efficientnet``, as a multiple of the published
    network's."""
    small_steps: int = Field(default=0, ge=0)
    """Number of first steps in which pictures have the size ``small_size``, which costs less."""
    small_size: int = Field(default=0, ge=0)
    frozen_tower: bool = False
    """Whether only the heads are trained. They learn from the tower's tokens, which are stored once for as
    many views as those of the contrast."""
    mixup: float = Field(default=0.0, ge=0)
    """Both parameters of the beta distribution with which pairs of pictures are mixed (arXiv 1710.09412). 0:
    no mixing."""
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the weights' moving average over the second half of the steps, which is the result. 0: the
    result is the last weights."""
    replicas: int = Field(default=1, ge=1)
    """Number of parts of a batch that are trained in parallel threads, each with its own batch statistics."""

    @model_validator(mode="after")
    def _frozen_has_no_pixels(self) -> ClassificationStage:
        if self.frozen_tower and (self.small_steps or self.mixup or self.replicas > 1):
            raise ValueError(
                "the heads of a frozen tower learn from stored tokens: leave out small_steps, mixup and "
                "replicas"
            )
        return self


class ContrastStage(Strict):
    """Stage 1 of pretraining: the Q-Former learns to match images and captions made from their attributes."""

    steps: int = Field(gt=0)
    batch_size: int = Field(default=128, gt=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    views: tuple[int, ...] = (1,)
    """Number of stored views of each catalogue's images, counting the picture itself, in the order of
    ``--data``."""
    shares: tuple[float, ...] = (1.0,)
    """Share of batches from each catalogue, in the order of ``--data``; a batch is from one catalogue."""


class PretrainingRecipe(Strict):
    """The recipe for pretraining a small BLIP-2, from scratch or with a tower of published weights."""

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
    """Read a training recipe; raises ``DataError`` that says where the mistake is."""
    return _with_sources(read_settings(path, Recipe), path)


def read_pretraining_recipe(path: Path) -> PretrainingRecipe:
    """Read a pretraining recipe; raises ``DataError`` that says where the mistake is."""
    return _with_sources(read_settings(path, PretrainingRecipe), path)


def _with_sources(recipe: AnyRecipe, path: Path) -> AnyRecipe:
    """Return the recipe with the sources from the file that it names, if it names one."""
    if not isinstance(recipe.sources, str):
        return recipe
    read = read_settings(path.parent / recipe.sources, SourcesFile)
    return recipe.model_copy(update={"sources": read.sources})
