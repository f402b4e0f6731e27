"""Read and check the weights and splits of a reproduction, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dqecir.data.annotations import Questions, read_json
from dqecir.data.images import Preprocessing
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.missing_images import (
    Inventory,
    checked_benchmark,
    checked_questions,
    settle,
    training_split,
)
from dqecir.evaluation.protocols import Protocol
from dqecir.experiments.reproduce.request import Request
from dqecir.io.device import chosen_device
from dqecir.methods.method import Method, method_named
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import model_of
from dqecir.training.recipe import Recipe

MEASURED = "val"
"""The split that is measured; published codes also choose their epoch on it."""


@dataclass(frozen=True)
class Material:
    """The data of a reproduction: for measuring, for training and for submissions."""

    measured: Benchmark
    training: Benchmark | None
    """The training split; None if nothing is trained."""
    questions: Questions | None
    """The test split; None if there is none, or if images are missing."""
    inventories: tuple[Inventory, ...]
    notes: tuple[str, ...]

    @property
    def lacking(self) -> int:
        """Number of images that are missing from the measured gallery."""
        return sum(len(one.missing) for one in self.inventories if one.split == MEASURED)


def read_material(request: Request, protocol: Protocol, recipe: Recipe | None) -> Material:
    """Read every split that the reproduction needs; the training split only with a ``recipe``.

    Raises :class:`DataError` if annotations cannot be used, or if images are missing (a file then lists
    them), unless the request says to skip them.
    """
    where, notes = request.images, []
    measured, inventory = checked_benchmark(
        protocol.benchmark(request.folder, MEASURED, images=where, check_images=False)
    )
    inventories, training, questions = [inventory], None, None
    if recipe is not None:
        # Asking twice, in both caption orders, is only for measuring; training draws its orders.
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
    """Return the untrained model of ``weights`` on this process's device, for a method of the class ``kind``.

    Public weights resize pictures to a square; if the publication of the method pads and crops instead, so
    does the model. Raises as :func:`model_of`.
    """
    model = model_of(weights)
    if model.preprocessing.squash and not kind.published_squash:
        model = replace(model, preprocessing=model.preprocessing.model_copy(update={"squash": False}))
    return model.to(chosen_device()).eval()


def kind_in(folder: Path) -> type[Method]:
    """Return the class of the method in a model folder; raises :class:`DataError` if it is unknown."""
    return method_named(str(read_json(folder / "config.json", "a model's settings").get("method")))


def in_words(preprocessing: Preprocessing) -> str:
    """Return a phrase that says how pictures become squares."""
    if preprocessing.squash:
        return f"squashed to {preprocessing.size} pixels"
    return f"padded to {preprocessing.pad_ratio:g}, resized, cropped to {preprocessing.size} pixels"
