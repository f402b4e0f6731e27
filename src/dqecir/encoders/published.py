"""A published BLIP-2 as ours, whole or its tower alone, in the two forms it is kept in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoint_files import State, located, read_published
from dqecir.encoders.checkpoints import LoadReport, lavis_state, load_lavis
from dqecir.encoders.hf_checkpoints import (
    hf_config,
    hf_preprocessing,
    hf_sizes,
    hf_state,
    hf_tensors,
    load_hf,
)
from dqecir.encoders.lavis_sizes import lavis_sizes, lavis_tower, tower_sizes
from dqecir.errors import CheckpointError


@dataclass(frozen=True)
class PublishedBackbone:
    """A backbone with published weights, and what came with it."""

    backbone: Blip2
    preprocessing: Preprocessing
    report: LoadReport
    tower_source: str
    """A name that finds the tower's weights again (:func:`located`)."""
    tokenizer: Path | None = None
    """The folder that holds word pieces, where the weights bring any."""
    notes: Mapping[str, str] = field(default_factory=dict)


def read_hf(weights: str | Path, tower: str | Path | None = None) -> PublishedBackbone:
    """Read a folder or hub repository of transformers; raises :class:`CheckpointError`.

    Its ``post_layernorm`` becomes ``ln_vision`` with the eps that it was trained with (1e-5).
    """
    place, name = located(weights)
    if not place.is_dir():
        raise CheckpointError(f"{weights} is a file: weights of transformers are a folder with a config.json")
    if tower is not None:
        raise CheckpointError("weights of transformers have their tower: name one for LAVIS' files alone")
    state = hf_tensors(place)
    backbone = Blip2(hf_sizes(hf_config(place), state))
    report = load_hf(backbone, state)
    preprocessing = hf_preprocessing(place, backbone.config.tower.image_size)
    own = any((place / file).exists() for file in ("tokenizer.json", "vocab.txt"))
    notes = {"temperature": f"{backbone.config.temperature}, where LAVIS begins: the weights have none"}
    return PublishedBackbone(backbone, preprocessing, report, name, place if own else None, notes)


def read_lavis(weights: str | Path, tower: str | Path | None = None) -> PublishedBackbone:
    """Read a checkpoint file of LAVIS, with the tower of the file ``tower`` where it has none itself.

    Raises :class:`CheckpointError`.
    """
    place, name = located(weights)
    state = _lavis_file(place)
    if tower is not None and not lavis_tower(state):
        tower_place, name = located(tower)
        lent = lavis_tower(_lavis_file(tower_place))
        if not lent:
            raise CheckpointError(
                f"{tower} holds no image tower of LAVIS: name eva_vit_g.pth or clip_vit_L.pth"
            )
        state = state | lent
    backbone = Blip2(lavis_sizes(state))
    report = load_lavis(backbone, state)
    preprocessing = Preprocessing(size=backbone.config.tower.image_size, squash=True)
    return PublishedBackbone(backbone, preprocessing, report, name)


READERS: dict[str, Callable[[str | Path, str | Path | None], PublishedBackbone]] = {
    "hf": read_hf,
    "lavis": read_lavis,
}
"""The forms of published weights: a folder of transformers, a file of LAVIS."""


def form_of(place: Path) -> str:
    """The name in :data:`READERS` of the form that weights at ``place`` have."""
    return "hf" if place.is_dir() else "lavis"


def tower_state(place: Path) -> State:
    """The tower alone of published weights at ``place``, under the names of :class:`Blip2`.

    Raises :class:`CheckpointError` where there is none.
    """
    if form_of(place) == "hf":
        named: Mapping[str, Tensor] = hf_state(hf_tensors(place))
    else:
        tower = lavis_tower(_lavis_file(place))
        named = lavis_state(tower, tower_sizes(tower).kind)
    found = {key: value for key, value in named.items() if key.startswith("tower.")}
    if not found:
        raise CheckpointError(f"{place} holds no image tower")
    return found


def _lavis_file(place: Path) -> State:
    if place.is_dir():
        raise CheckpointError(f"{place} is a folder: weights of LAVIS are a file")
    state = read_published(place)
    if any(key.startswith("vision_model.") for key in state):
        raise CheckpointError(f"{place} has transformers' names: name the folder that it lies in")
    return state
