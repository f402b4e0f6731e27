"""The contract of an encoder: its inputs, its outputs, and what a method can use.

An encoder is one file that defines one registered subclass of :class:`Encoder`. Its ``provides`` lists its
capabilities; a method's ``requires`` lists those it needs.
"""

from __future__ import annotations

import math
import re
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Literal, NoReturn, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.encoders.licences import Origin
from dqecir.encoders.tokenizer import TextTokenizer, WordPieces
from dqecir.errors import DataError
from dqecir.settings import Strict, nearest

Capability = Literal["tokens", "image", "text", "text_states", "composed", "word_embeddings"]
"""``tokens``: image tokens [B, M, W]. ``image``: a vector for each image [B, D]. ``text``: a vector for each
text [B, D] in the space of ``image``. ``text_states``: states of a text's tokens [B, L, H]. ``composed``: an
image encoded together with a text. ``word_embeddings``: texts in which a vector replaces a word."""

CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


def unit(vectors: Tensor) -> Tensor:
    """Normalise vectors to length 1 on the last axis, in float32 also under autocast."""
    return F.normalize(vectors.float(), dim=-1)


@dataclass(frozen=True)
class TextBatch:
    """Tokenised texts, padded on the right.

    ``ids`` [B, L] int64, ``mask`` [B, L] int64 (1 = a token, 0 = padding), ``mentions``
    [B, A, L] bool: token l belongs to a word that signals attribute a. ``texts`` are the original
    texts, for methods and encoders that read them.
    """

    ids: Tensor
    mask: Tensor
    mentions: Tensor
    texts: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> TextBatch:
        """Return the same batch on another device."""
        return TextBatch(self.ids.to(device), self.mask.to(device), self.mentions.to(device), self.texts)

    def __getitem__(self, rows: Tensor | slice) -> TextBatch:
        if isinstance(rows, slice):
            texts = self.texts[rows]
        else:
            texts = tuple(self.texts[row] for row in rows.tolist()) if self.texts else ()
        return TextBatch(self.ids[rows], self.mask[rows], self.mentions[rows], texts)


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes that methods, heads and stores are built with; 0 if the encoder lacks the part."""

    image: int
    """Side of the square that the tower sees, in pixels [S]."""
    token_count: int
    """Image tokens [M]."""
    token_width: int
    """[W]"""
    grid_side: int = 0
    """Patches in a row of the map that the last tokens form; 0: the largest square of all tokens."""
    embedding: int = 0
    """Width of image and text embeddings [D]."""
    target_tokens: int = 1
    """Number of vectors of a target embedding [n_t]."""
    vocabulary: int = 0
    """Number of different text tokens."""
    word_width: int = 0
    """Width of word embeddings and of text states [H]."""


class Encoder(nn.Module, ABC):
    """An encoder of images and texts with a frozen image tower.

    :meth:`image_tokens` runs the tower once for each image, without gradient; everything else takes those
    tokens. A subclass sets ``config``, ``sizes``, ``tower`` and ``temperature``, and overrides the
    operations of the capabilities it provides.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type[Strict]]
    provides: ClassVar[frozenset[Capability]]
    text_alone: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    """Names of the weights that only texts use."""
    own_weights: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the weights that :meth:`save_own` writes; a model folder keeps all others in one file."""
    no_image: ClassVar[tuple[str, ...]] = ("tower.", "temperature")
    """Prefixes of other weights, besides the tower's, that image embeddings do not use."""

    config: Strict
    sizes: EncoderSizes
    tower: nn.Module
    temperature: nn.Parameter
    """The temperature of the encoder's training."""

    def __init__(self, config: Any) -> None:
        """Keep ``config``, which is a :attr:`config_type`."""
        super().__init__()
        self.config = config
        self.origin = Origin()

    def __str__(self) -> str:
        return f"{self.kind} ({self.origin.source})" if self.origin.source else self.kind

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.temperature.device

    @classmethod
    def read_tokenizer(cls, folder: Path) -> TextTokenizer:
        """Read the tokenizer of a model folder; raises :class:`CheckpointError`."""
        return WordPieces.from_pretrained(folder)

    @classmethod
    def read(cls, config: Any, folder: Path) -> Self:
        """Return the encoder of a model folder, of which only :attr:`own_weights` are loaded.

        Raises :class:`CheckpointError`.
        """
        return cls(config)

    def save_own(self, folder: Path) -> None:
        """Write :attr:`own_weights` into a model folder for :meth:`read`."""

    @property
    def untraced(self) -> list[Any]:
        """Return settings that change image embeddings but not the shapes of the weights."""
        return []

    def freeze_tower(self) -> None:
        """Freeze the tower: no gradients, always evaluation mode."""
        self.tower.requires_grad_(False)
        self.tower.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of every part but a frozen tower, whose statistics must not change."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.tower.parameters()):
            self.tower.eval()
        return self

    @torch.no_grad()
    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Turn pixels [B, 3, S, S] into the tokens [B, M, W] that stores keep."""
        tokens: Tensor = self.tower(pixels.to(self.device))
        return tokens

    def image_grid(self, tokens: Tensor) -> Tensor:
        """Return image tokens [B, M, W] as a map [B, W, S, S], without class and register tokens."""
        side = self.sizes.grid_side or math.isqrt(tokens.shape[1])
        patches = tokens[:, tokens.shape[1] - side * side :]
        return patches.transpose(1, 2).unflatten(2, (side, side)).float()

    def grid_state(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights after the tower that :meth:`image_grid` uses, names prefixed with ``prefix``."""
        return {}

    def image_state(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights after the tower that image embeddings use, with ``prefix`` before each name."""
        return {
            prefix + name: value
            for name, value in self.state_dict().items()
            if not name.startswith(self.no_image) and self.text_alone.match(name) is None
        }

    def pooled_image(self, tokens: Tensor) -> Tensor:
        """Return a vector for each image, [B, D], not normalised; needs the capability ``image``."""
        self._lacks("image")

    def target_embeddings(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings [B, n_t, D] of candidate images; needs the capability ``image``."""
        return unit(self.pooled_image(tokens))[:, None]

    def pooled_text(self, text: TextBatch) -> Tensor:
        """Return a vector for each text, [B, D], not normalised; needs the capability ``text``."""
        self._lacks("text")

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return states [B, L, H] of texts' tokens; needs the capability ``text_states``."""
        self._lacks("text_states")

    def composed_states(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images with texts: query states [B, n_q, H] and text states [B, L, H].

        Needs the capability ``composed``.
        """
        self._lacks("composed")

    def pooled_composed(self, tokens: Tensor, text: TextBatch) -> Tensor:
        """Return a vector for each image with its text, [B, D], not normalised.

        Needs the capability ``composed``.
        """
        self._lacks("composed")

    def text_with_words(self, ids: Tensor, mask: Tensor, words: Tensor, places: Tensor) -> Tensor:
        """Encode texts as :meth:`pooled_text`, with ``words`` [B, H] for the embeddings at ``places`` [B, L].

        A text's vector is used at all of its places. Needs the capability ``word_embeddings``.
        """
        self._lacks("word_embeddings")

    def _lacks(self, capability: Capability) -> NoReturn:
        raise DataError(f"the encoder {self} does not provide {capability}: use another encoder")


ENCODERS: dict[str, type[Encoder]] = {}
"""The registered kinds of encoders by name."""


def register_encoder(kind: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Register an :class:`Encoder` for model folders under ``kind``, the name of its file."""

    def add(encoder: type[Encoder]) -> type[Encoder]:
        encoder.kind = kind
        ENCODERS[kind] = encoder
        return encoder

    return add


def encoder_named(kind: str) -> type[Encoder]:
    """Return the encoder class of ``kind``; raises :class:`DataError` that names the nearest kind."""
    if kind not in ENCODERS and kind in _files():
        import_module(f"{__package__}.{kind}")
    if kind not in ENCODERS:
        raise DataError(f"there is no kind of encoder {kind!r}{nearest(kind, all_encoders())}")
    return ENCODERS[kind]


def all_encoders() -> Mapping[str, type[Encoder]]:
    """Import every file of this folder and return all kinds of encoders by name."""
    for file in _files():
        import_module(f"{__package__}.{file}")
    return ENCODERS


def _files() -> list[str]:
    return [module.name for module in iter_modules([str(Path(__file__).parent)])]
