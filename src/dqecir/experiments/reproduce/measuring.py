"""The measured rows of a report, each with its model and the conditions of the measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dqecir.data.annotations import Questions
from dqecir.data.hp_fashioniq import Preferences
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.evaluation.protocols import Protocol, QueryText
from dqecir.evaluation.runs import wording_of
from dqecir.experiments.reproduce.request import Request
from dqecir.methods.method import Method
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of

GALLERIES: Mapping[tuple[str, str], str] = {
    ("fashioniq", "original"): "original",
    ("fashioniq", "val_split"): "VAL split",
    ("fashioniq", "joint"): "joint",
    ("cirr", "original"): "whole split",
    ("circo", "original"): "COCO 2017 unlabeled",
}
"""(data set, gallery) of a protocol -> the gallery's name in published rows."""

CAPTIONS: Mapping[QueryText, str] = {
    "clean_and": "c1 and c2, cleaned",
    "raw_and": "c1 and c2, raw",
    "covr": "c1 and c2, cleaned, 30 words",
    "composeae": "category, c1 and it c2",
    "raw": "as annotated",
    "qure_circo": "a photo of $ that …",
}


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement; the report names them with every number."""

    protocol: str
    split: str
    gallery: str
    reference: str
    captions: str

    @property
    def text(self) -> str:
        """The conditions as one line."""
        return f"{self.split}, gallery {self.gallery}, reference {self.reference}, captions {self.captions}"


def conditions_of(protocol: Protocol, split: str, method: Method) -> Conditions:
    """Return the conditions of a protocol for a method, which may word its own queries.

    ``split`` is the measured split.
    """
    captions = CAPTIONS[protocol.wording] + ("; and reversed, 2Q queries" if protocol.both_orders else "")
    return Conditions(
        protocol.name,
        split,
        GALLERIES[protocol.data, protocol.gallery],
        "masked" if protocol.mask_reference else "not masked",
        captions if wording_of(method, protocol) is not None else f"as {method.name} words them",
    )


@dataclass(frozen=True)
class MeasuredRow:
    """The metrics of one model, in percent."""

    name: str
    chosen: str
    """How the model's epoch was chosen, and on which split."""
    conditions: Conditions
    metrics: Mapping[str, float]


def tokens_of(
    model: ComposedModel, images: Benchmark | Questions | Preferences, request: Request, views: int = 1
) -> TokenStore:
    """Return the image tokens of a split, after encoding those that are not stored yet.

    They are in ``request.tokens`` (default: ``request.out/tokens``), in a folder for each tower and number of
    ``views`` (versions of a picture: itself, then random changes of it). All splits share this folder, as do
    other reproductions with the same ``request.tokens``.
    """
    folder = (request.tokens or request.out / "tokens") / f"{model.tower_fingerprint}-{views}"
    return store_of(model, images, folder, views)
