"""The weights and splits of a reproduction, read and checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dqecir.data.annotations import Questions, read_json
from dqecir.data.images import Preprocessing
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.protocols import Protocol
from dqecir.experiments.reproduce.checking import (
    Inventory,
    checked_benchmark,
    checked_questions,
    settle,
    training_split,
)
from dqecir.experiments.reproduce.request import Request
from dqecir.io.device import chosen_device
from dqecir.methods.method import Method, method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.training.recipe import Recipe

MEASURED = "val"
"""The split that is measured, and on which published codes choose their epoch."""


@dataclass(frozen=True)
class Material:
    """The data that is measured, trained on and submitted."""

    measured: Benchmark
    training: Benchmark | None
    """None where nothing is trained."""
    questions: Questions | None
    """The test split; None where there is none or where images of it are missing."""
    inventories: tuple[Inventory, ...]
    notes: tuple[str, ...]

    @property
    def lacking(self) -> int:
        """Candidates that the measured gallery lacks."""
        return sum(len(one.missing) for one in self.inventories if one.split == MEASURED)


def read_material(request: Request, protocol: Protocol, recipe: Recipe | None) -> Material:
    """Read every split that the reproduction needs; without a recipe, none to train on.

    Raises :class:`DataError` for annotations that cannot be used, and for missing images unless they are
    to be skipped; all of them are then named in one file.
    """
    where, notes = request.images, []
    measured, inventory = checked_benchmark(
        protocol.benchmark(request.folder, MEASURED, images=where, check_images=False)
    )
    inventories, training, questions = [inventory], None, None
    if recipe is not None:
        # A second asking in the other order is a way to measure; training draws its orders itself.
        plain = replace(protocol, both_orders=False)
        read = plain.benchmark(request.folder, "train", images=where, check_images=False)
        asking = training_split(read, galleries=recipe.negatives.corpus == "gallery")
        if len(asking.triplets) < len(read.triplets):
            left = len(read.triplets) - len(asking.triplets)
            notes.append(f"{left:,} training triplets without a text were left out.")
        training, inventory = checked_benchmark(asking)
        inventories.append(inventory)
    if request.data_set.test is not None:
        questions, inventory = checked_questions(
            protocol.questions(request.folder, request.data_set.test, images=where, check_images=False)
        )
        inventories.append(inventory)
        if inventory.missing:
            questions = None
            notes.append(
                f"No submission was written: images of {inventory.split} are missing, and the server wants "
                "an answer to every question from the whole gallery."
            )
    settle(request.data, inventories, request.missing, request.out)
    return Material(measured, training, questions, tuple(inventories), tuple(notes))


def start_of(weights: str, kind: type[Method]) -> ComposedModel:
    """Return the untrained model of ``weights``, where this process computes, for a method of ``kind``.

    Public weights squash their pictures; where the method's publication pads and crops them, so does
    this. Raises as :func:`model_of`.
    """
    model = model_of(weights)
    if model.preprocessing.squash and not kind.published_squash:
        model = replace(model, preprocessing=model.preprocessing.model_copy(update={"squash": False}))
    return model.to(chosen_device()).eval()


def kind_in(folder: Path) -> type[Method]:
    """Return the method of a model folder; raises :class:`DataError` where it is not known."""
    return method_named(str(read_json(folder / "config.json", "a model's settings").get("method")))


def in_words(preprocessing: Preprocessing) -> str:
    """How pictures become squares."""
    if preprocessing.squash:
        return f"squashed to {preprocessing.size} pixels"
    return f"padded to {preprocessing.pad_ratio:g}, resized, cropped to {preprocessing.size} pixels"
