"""The contract of a method: how it embeds queries and targets, and its loss.

A method is one file with one registered subclass of :class:`Method`. Everything else (mining, training,
evaluation, the index) uses methods through this contract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.captions import join_fashioniq
from dqecir.encoders.checkpoints import PublishedKeys
from dqecir.encoders.encoder import CAPABILITIES, Capability, Encoder, TextBatch, all_encoders, unit
from dqecir.encoders.tokenizer import Placeholder
from dqecir.errors import DataError
from dqecir.language.parsing import Parser
from dqecir.language.vocabulary import Vocabulary
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.negatives import NegativeSampling
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.value_vectors import SlicedValues
from dqecir.settings import Strict, nearest


class MethodOptions(Strict):
    """Options of a method; an unknown key is an error."""

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Raise ``ValueError`` if these options and the settings for negatives contradict each other.

        Default: accept all settings.
        """


class InBatchOptions(MethodOptions):
    """Options of a method whose loss takes its negatives from the batch."""

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Raise ``ValueError`` if negatives would be drawn, because the loss would not use them."""
        if negatives.choose != "none":
            raise ValueError("the method contrasts within the batch: set negatives.choose to none")


REQUESTED = 0.5
"""A column counts as requested from this probability on."""


@dataclass(frozen=True)
class QueryParts:
    """The parts of B queries: a query is ``base`` + Σ_p ``weights``[:, p] · ``pieces``[:, p].

    A piece is what one attribute, or one catalogue column, adds to the query at weight 1.
    """

    base: Tensor
    """[B, n_q, D]: the part of the query that belongs to no attribute."""
    pieces: Tensor
    """[B, P, n_q, D]: P pieces for each query."""
    weights: Tensor
    """[B, P]: weights of the pieces, which depend on the text."""
    owners: tuple[int, ...]
    """For each piece, the place of its attribute in the model's order."""
    columns: tuple[str, ...] = ()
    """For each piece, the name of its column; empty if pieces belong to attributes."""
    normalised: bool = False
    """Whether the sum is scaled to vectors of length 1."""
    asked: Tensor | None = None
    """[B, P]: probability that the text requests the column of a piece; None if the method does not predict
    it."""
    wanted: tuple[Tensor, ...] = ()
    """For each column [B, values]: probability of each value that the target should have; empty if the method
    does not predict it."""
    unread: tuple[tuple[str, ...], ...] | None = None
    """For each query, the parts of its text that had no effect; None if the method does not report them."""
    reads_all: bool = False
    """Whether ``base`` depends on the whole text, so that every word has an effect."""
    slices: SlicedValues | None = None
    """Makes the pieces from ``wanted``; None unless a query is one vector with a slice of numbers for each
    column."""

    def embeddings(self) -> Tensor:
        """Return the queries [B, n_q, D]."""
        whole = self._whole()
        return unit(whole) if self.normalised else whole

    def added(self) -> Tensor:
        """Return what each piece adds to :meth:`embeddings`, with its weight: [B, P, n_q, D]."""
        added = self.weights[:, :, None, None] * self.pieces
        return added / self._whole().norm(dim=2, keepdim=True)[:, None] if self.normalised else added

    def _whole(self) -> Tensor:
        return self.base + torch.einsum("bp,bpqd->bqd", self.weights, self.pieces)


@dataclass(frozen=True)
class Query:
    """Composed queries: ``embeddings`` [B, n_q, D], which are scored against targets, and their parts.

    The others are None if the method does not have them: ``attribute_embeddings`` [B, A, n_q, D] is the query
    of each attribute alone, ``attribute_weights`` [B, A] are the weights of attributes.
    """

    embeddings: Tensor
    attribute_embeddings: Tensor | None = None
    attribute_weights: Tensor | None = None
    parts: QueryParts | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """The input of a training step: B triplets, and the C different images of their targets and negatives."""

    reference: Tensor
    """Image tokens [B, M, W] of the references."""
    text: TextBatch
    candidates: Tensor
    """Image tokens [C, M, W] of the candidates: the different images of targets and negatives."""
    targets: Tensor
    """[B]: place of each target among the candidates."""
    negatives: Tensor
    """[B, K]: places of the drawn negatives among the candidates; K is 0 if none are drawn."""
    right: Tensor
    """[B, C] bool: candidates that are known right answers, including the target."""
    attribute_values: Tensor
    """[C, K]: place of each candidate's true value in each of the K columns of the heads, or
    ``UNKNOWN_CODE``."""
    reverse_text: TextBatch | None = None
    """Texts of the reverse direction, from target to reference; None if the method does not use them."""
    asked: Tensor | None = None
    """[B, K]: whether a text requests each of the heads' K columns: 1, 0 or ``UNKNOWN_CODE``. None if
    unknown."""
    progress: float = 0.0
    """Share of the training that is done, from 0 to 1."""


@dataclass(frozen=True)
class MethodContext:
    """What a method is built with besides the backbone and its options.

    ``lexicon_ids``: token ids of each attribute's lexicon, in the order of ``vocabularies``, of which each
    attribute has one. ``columns``: catalogue column that ``heads`` predict -> place of its attribute.
    ``heads`` predict attributes of images. ``placeholder``: the token that textual inversion replaces.
    ``text_encoder`` encodes further sentences that a method needs. What the model does not have is None or
    empty.
    """

    lexicon_ids: Sequence[Tensor] = ()
    columns: Mapping[str, int] = field(default_factory=dict)
    heads: AttributeHeads | None = None
    vocabularies: Sequence[Vocabulary] = ()
    placeholder: Placeholder | None = None
    text_encoder: TextEncoder | None = None


class Method(nn.Module, ABC):
    """A way to compose a reference image and a modification text to a query."""

    name: ClassVar[str]
    options_type: ClassVar[type[MethodOptions]]
    score_rule: ScoreRule = "max_t"
    published_keys: ClassVar[PublishedKeys | None] = None
    """How the tensors of a published composer are named; None if no composer can be read on its own."""

    requires: ClassVar[frozenset[Capability]] = frozenset()
    """What an encoder must provide besides image tokens."""

    published_squash: ClassVar[bool] = False
    """Whether the published code resizes pictures to a square, instead of padding or cropping them."""

    parser: Parser | None = None
    """A parser that reads texts with rules, besides the text encoder; None if the method has none."""

    learns_gallery: bool = False
    """Whether :meth:`fit_targets` must see pictures of the gallery before targets are embedded."""

    only_evaluated: ClassVar[tuple[str, ...]] = ()
    """Names of frozen modules that stay in evaluation mode while the method is trained."""

    def __init__(self, backbone: Encoder, options: MethodOptions | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        # Another method that was trained on the same backbone may have frozen parts of it.
        backbone.requires_grad_(True)
        backbone.freeze_tower()

    @property
    def device(self) -> torch.device:
        """The device of the method's weights."""
        return self.backbone.device

    def text(self, captions: Sequence[str]) -> str:
        """Join the captions of a triplet to the modification text that the method reads."""
        return join_fashioniq(captions)

    def reverse_text(self, captions: Sequence[str]) -> str | None:
        """Join captions to the text of the reverse direction, from target to reference; None if not used."""
        return None

    @classmethod
    def build(cls, backbone: Encoder, options: MethodOptions, context: MethodContext) -> Self:
        """Return a new, untrained method; ``options`` must be of the type :attr:`options_type`.

        Raises :class:`DataError` if the encoder does not provide what the method requires, or if the context
        lacks something.
        """
        check_fit(cls, backbone)
        return cls.from_context(backbone, options, context)

    @classmethod
    def from_context(cls, backbone: Any, options: MethodOptions, context: MethodContext) -> Self:
        """Build the method on a ``backbone`` that provides everything that the method requires.

        Default: use only the backbone and the options. A method that needs parts of ``context`` overrides
        this, and raises :class:`DataError` if they are missing.
        """
        return cls(backbone, options)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, except for the modules in :attr:`only_evaluated`; return self."""
        super().train(mode)
        for name in self.only_evaluated if mode else ():
            getattr(self, name).eval()
        return self

    @property
    def weighted_attributes(self) -> tuple[int, ...]:
        """Places of the attributes whose weights a user may set; the owners of ``Query.parts``."""
        return ()

    @property
    def target_shape(self) -> tuple[int, int]:
        """Number of vectors and width (n_t, D) of a target embedding."""
        sizes = self.backbone.sizes
        return sizes.target_tokens, sizes.embedding

    @abstractmethod
    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        """Compose queries from image tokens [B, M, W] of references and B texts."""

    def embed_text(self, text: TextBatch) -> Tensor | None:
        """Compose queries [B, n_q, D] from B texts without references. Default: None; the method cannot."""
        return None

    def embed_target(self, tokens: Tensor) -> Tensor:
        """Return target embeddings [N, n_t, D] of images, for their image tokens [N, M, W]."""
        return self.backbone.target_embeddings(tokens)

    def target_state(self) -> dict[str, Tensor]:
        """Return the weights, by name, that turn image tokens into target embeddings.

        An index can only be searched with the same weights. Default: those of the backbone. A method whose
        targets depend on further weights overrides this.
        """
        return self.backbone.image_state("backbone.")

    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        """Learn from batches of image tokens [N, M, W] of a gallery. Default: do nothing."""

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        """Column -> its values, in the order in which target embeddings hold them. Default: empty."""
        return {}

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the terms of the loss by name, multiplied by their weights; training minimises their sum."""

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Return a mask [B, C] of the candidates that are negatives in the loss.

        Default: all but the target.
        """
        return ~F.one_hot(batch.targets, len(batch.candidates)).bool()

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return :meth:`loss`; distributed training calls the module itself, not a method of it."""
        return self.loss(batch)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters outside of the backbone; they can get their own learning rate."""
        known = {id(parameter) for parameter in self.backbone.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in known]

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep parameters within their limits; called after every optimiser step. Default: do nothing."""


class PooledMethod(Method):
    """A method whose queries and targets are one vector each; a target is a pooled image feature.

    Subclasses with other targets override :meth:`embed_target`.
    """

    score_rule: ScoreRule = "dot"
    requires = frozenset({"image", "text"})

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, self.backbone.sizes.embedding

    def embed_text(self, text: TextBatch) -> Tensor:
        return unit(self.backbone.pooled_text(text))[:, None]

    def text_features(self, text: TextBatch) -> Tensor:
        """Return features [B, D] of texts, not normalised. Default: those of the backbone."""
        return self.backbone.pooled_text(text)

    def embed_target(self, tokens: Tensor) -> Tensor:
        """Return unit vectors [N, 1, D] of images, for their image tokens [N, M, W]."""
        return unit(self.backbone.pooled_image(tokens))[:, None]


METHODS: dict[str, type[Method]] = {}
"""Name -> class of the registered methods."""


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Return a class decorator that registers a method under ``name``, for recipes and checkpoints."""

    def add(method: type[Method]) -> type[Method]:
        method.name = name
        METHODS[name] = method
        return method

    return add


def method_named(name: str) -> type[Method]:
    """Return the class of the method ``name``; raises :class:`DataError` that suggests a similar name."""
    # Most methods are in the file of the same name; importing only that file is faster.
    if name not in METHODS and name in _files():
        import_module(f"{__package__}.{name}")
    known = METHODS if name in METHODS else all_methods()
    if name not in known:
        raise DataError(f"there is no method {name!r}{nearest(name, known)}")
    return known[name]


def all_methods() -> Mapping[str, type[Method]]:
    """Import every file of this folder, and return all methods: name -> class."""
    for file in _files():
        import_module(f"{__package__}.{file}")
    return METHODS


def check_fit(method: type[Method], encoder: Encoder) -> None:
    """Raise :class:`DataError` if ``encoder`` does not provide what ``method`` requires.

    The message names pairs of method and encoder that fit.
    """
    needed = method.requires | {"tokens"}
    lacking = [name for name in CAPABILITIES if name in needed - encoder.provides]
    if not lacking:
        return
    kinds = [kind for kind, known in sorted(all_encoders().items()) if needed <= known.provides]
    fitting = {name: known for name, known in all_methods().items() if known.requires <= encoder.provides}
    pairs = [f"{method.name} with {kinds[0]}"] if kinds else []
    if fitting:
        # Name the method that uses most of the capabilities that the method needs and the encoder has.
        near = max(sorted(fitting), key=lambda name: len(fitting[name].requires & method.requires))
        pairs.append(f"{near} with {encoder.kind}")
    raise DataError(
        f"{method.name} needs {_listed(lacking)}, which the encoder {encoder} does not provide: "
        f"use {' or '.join(pairs) or 'another encoder'}"
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _files() -> list[str]:
    return [module.name for module in iter_modules([str(Path(__file__).parent)])]
