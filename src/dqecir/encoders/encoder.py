"""The contract of an encoder: its inputs and outputs, and what methods can use.

An encoder is one file with one registered subclass of :class:`Encoder`. Its ``provides`` lists its
capabilities; a method's ``requires`` lists those that it needs.
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
"""What an encoder can do. ``tokens``: image tokens [B, M, W]. ``image``: a vector for each image [B, D].
``text``: a vector for each text [B, D] in the same space. ``text_states``: states of a text's tokens [B, L,
H]. ``composed``: encode an image together with a text. ``word_embeddings``: encode texts in which a vector
replaces a word."""

CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors on the last axis to length 1, in float32 even under autocast."""
    return F.normalize(vectors.float(), dim=-1)


@dataclass(frozen=True)
class TextBatch:
    """Tokenised texts, padded on the right.

    ``ids`` [B, L] int64; ``mask`` [B, L] int64: 1 for a token, 0 for padding; ``mentions`` [B, A, L] bool:
    whether the token belongs to a word of the lexicon of each of the A attributes. ``texts`` are the original
    texts, for methods and encoders that read them.
    """

    ids: Tensor
    mask: Tensor
    mentions: Tensor
    texts: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> TextBatch:
        """Return the batch on another device."""
        return TextBatch(self.ids.to(device), self.mask.to(device), self.mentions.to(device), self.texts)

    def __getitem__(self, rows: Tensor | slice) -> TextBatch:
        if isinstance(rows, slice):
            texts = self.texts[rows]
        else:
            texts = tuple(self.texts[row] for row in rows.tolist()) if self.texts else ()
        return TextBatch(self.ids[rows], self.mask[rows], self.mentions[rows], texts)


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of an encoder; 0 if it does not have the part."""

    image: int
    """Side in pixels of the square that the tower reads [S]."""
    token_count: int
    """Number of image tokens [M]."""
    token_width: int
    """Width of an image token [W]."""
    grid_side: int = 0
    """Number of patches in a row of the square map that the last tokens form [G]; 0: the whole part of the
    square root of the number of tokens."""
    embedding: int = 0
    """Width of image and text embeddings [D]."""
    target_tokens: int = 1
    """Number of vectors of a target embedding [n_t]."""
    vocabulary: int = 0
    """Number of tokens in the text tokenizer."""
    word_width: int = 0
    """Width of word embeddings and of text states [H]."""


class Encoder(nn.Module, ABC):
    """An encoder of images and texts with a frozen image tower.

    :meth:`image_tokens` runs the tower once for each image, without gradient; methods that read images take
    these tokens. A subclass sets ``sizes``, ``tower`` and ``temperature``, and overrides the methods of its
    capabilities. A method of another capability raises :class:`DataError`.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type[Strict]]
    provides: ClassVar[frozenset[Capability]]
    text_alone: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    """Regular expression of the names of weights that only texts use."""
    own_weights: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the weights that :meth:`save_own` writes; a model folder stores all others in one file."""
    no_image: ClassVar[tuple[str, ...]] = ("tower.", "temperature")
    """Prefixes of the weights that are not used to embed image tokens, such as the tower's."""

    config: Strict
    sizes: EncoderSizes
    tower: nn.Module
    temperature: nn.Parameter
    """The temperature with which the encoder was trained; 0.07 if it is not known."""

    def __init__(self, config: Any) -> None:
        """Store ``config``, which must be of the type :attr:`config_type`."""
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
        """Read the tokenizer in a model folder.

        Raises :class:`CheckpointError` if it is missing or damaged.
        """
        return WordPieces.from_pretrained(folder)

    @classmethod
    def read(cls, config: Any, folder: Path) -> Self:
        """Return the encoder of a model folder; only :attr:`own_weights` are loaded.

        ``config`` is of the type :attr:`config_type`. Raises :class:`CheckpointError` if they are missing or
        damaged.
        """
        return cls(config)

    def save_own(self, folder: Path) -> None:
        """Write :attr:`own_weights` into a model folder, for :meth:`read`."""

    @property
    def untraced(self) -> list[Any]:
        """Settings that change image embeddings but cannot be seen in the weights."""
        return []

    def freeze_tower(self) -> None:
        """Freeze the tower: it gets no gradients and always stays in evaluation mode."""
        self.tower.requires_grad_(False)
        self.tower.eval()

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.tower.parameters()):
            self.tower.eval()
        return self

    @torch.no_grad()
    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Return the image tokens [B, M, W] of normalised pixels [B, 3, S, S], as stores keep them."""
        tokens: Tensor = self.tower(pixels.to(self.device))
        return tokens

    def image_grid(self, tokens: Tensor) -> Tensor:
        """Return image tokens [B, M, W] as a map [B, W, G, G], without class and register tokens.

        G is ``sizes.grid_side`` or, if that is 0, the whole part of the square root of M.
        """
        side = self.sizes.grid_side or math.isqrt(tokens.shape[1])
        patches = tokens[:, tokens.shape[1] - side * side :]
        return patches.transpose(1, 2).unflatten(2, (side, side)).float()

    def grid_state(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights after the tower that :meth:`image_grid` uses.

        Each name begins with ``prefix``.
        """
        return {}

    def image_state(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights after the tower that image embeddings use; each name begins with ``prefix``."""
        return {
            prefix + name: value
            for name, value in self.state_dict().items()
            if not name.startswith(self.no_image) and self.text_alone.match(name) is None
        }

    def pooled_image(self, tokens: Tensor) -> Tensor:
        """Return a vector for each image [B, D], not normalised; needs the capability ``image``.

        ``tokens`` [B, M, W] are image tokens.
        """
        self._lacks("image")

    def target_embeddings(self, tokens: Tensor) -> Tensor:
        """Return unit target embeddings [B, n_t, D] of images; needs the capability ``image``.

        ``tokens`` [B, M, W] are image tokens.
        """
        return unit(self.pooled_image(tokens))[:, None]

    def pooled_text(self, text: TextBatch) -> Tensor:
        """Return a vector for each text [B, D], not normalised; needs the capability ``text``."""
        self._lacks("text")

    def text_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the states [B, L, H] of the texts' tokens; needs the capability ``text_states``.

        ``ids`` and ``mask`` [B, L] are as in :class:`TextBatch`.
        """
        self._lacks("text_states")

    def composed_states(self, tokens: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images with texts: return query states [B, n_q, H] and text states [B, L, H].

        Needs the capabilities ``composed`` and ``text_states``: with ``composed`` alone, an encoder has only
        :meth:`pooled_composed`. ``tokens`` [B, M, W] are image tokens; ``ids`` and ``mask`` [B, L] are as in
        :class:`TextBatch`.
        """
        self._lacks("composed")

    def pooled_composed(self, tokens: Tensor, text: TextBatch) -> Tensor:
        """Return a vector for each image with its text [B, D], not normalised.

        Needs the capability ``composed``. ``tokens`` [B, M, W] are image tokens.
        """
        self._lacks("composed")

    def text_with_words(self, ids: Tensor, mask: Tensor, words: Tensor, places: Tensor) -> Tensor:
        """Return vectors as :meth:`pooled_text`, with ``words`` [B, H] as word embeddings at ``places``.

        ``places`` [B, L] is bool; all places of a text get the same vector. Needs the capability
        ``word_embeddings``. ``ids`` and ``mask`` [B, L] are as in :class:`TextBatch`.
        """
        self._lacks("word_embeddings")

    def _lacks(self, capability: Capability) -> NoReturn:
        raise DataError(f"the encoder {self} does not provide {capability}: use another encoder")


ENCODERS: dict[str, type[Encoder]] = {}
"""Kind -> class of the registered encoders."""


def register_encoder(kind: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Return a class decorator that registers an encoder under ``kind``, the name of its file."""

    def add(encoder: type[Encoder]) -> type[Encoder]:
        encoder.kind = kind
        ENCODERS[kind] = encoder
        return encoder

    return add


def encoder_named(kind: str) -> type[Encoder]:
    """Return the class of the encoder ``kind``; raises :class:`DataError` that suggests a similar name."""
    if kind not in ENCODERS and kind in _files():
        import_module(f"{__package__}.{kind}")
    if kind not in ENCODERS:
        raise DataError(f"there is no kind of encoder {kind!r}{nearest(kind, all_encoders())}")
    return ENCODERS[kind]


def all_encoders() -> Mapping[str, type[Encoder]]:
    """Import every file of this folder, and return all encoders: kind -> class."""
    for file in _files():
        import_module(f"{__package__}.{file}")
    return ENCODERS


def _files() -> list[str]:
    return [module.name for module in iter_modules([str(Path(__file__).parent)])]
