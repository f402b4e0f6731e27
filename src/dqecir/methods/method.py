"""The contract of a method: how it embeds queries and targets, and its loss.

A method is one file that defines one registered subclass of :class:`Method`; everything else (mining, the
loop, evaluation, the index) uses it through this contract.
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
        """Raise ``ValueError`` if these options and the negatives contradict each other."""


class InBatchOptions(MethodOptions):
    """Options of a method whose loss finds its negatives within the batch."""

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Raise ``ValueError`` for drawn negatives, which no loss would use."""
        if negatives.choose != "none":
            raise ValueError("the method contrasts within the batch: set negatives.choose to none")


REQUESTED = 0.5
"""Least probability at which a text counts as requesting a column."""


@dataclass(frozen=True)
class QueryParts:
    """The parts of queries: ``base`` + Σ_p ``weights``[:, p] · ``pieces``[:, p].

    A piece is the part of an attribute, or of a catalogue column, at weight 1.
    """

    base: Tensor
    """[B, n_q, D]"""
    pieces: Tensor
    """[B, P, n_q, D]"""
    weights: Tensor
    """[B, P], decided by the text."""
    owners: tuple[int, ...]
    """Place of each piece's attribute."""
    columns: tuple[str, ...] = ()
    """Each piece's column, if pieces are columns."""
    normalised: bool = False
    """Whether the sum is normalised to unit vectors."""
    asked: Tensor | None = None
    """[B, P] probability that the text requests a column, if the method predicts it."""
    wanted: tuple[Tensor, ...] = ()
    """[B, values] for each column: the distribution of wanted values, if the method predicts it."""
    unread: tuple[tuple[str, ...], ...] | None = None
    """For each query the parts of its text that had no effect, if the method tells."""
    reads_all: bool = False
    """Whether ``base`` depends on the whole text, so that every word has an effect."""
    slices: SlicedValues | None = None
    """Makes pieces from wanted values, if a query is one vector with a slice for each column."""

    def embeddings(self) -> Tensor:
        """Return the queries [B, n_q, D]."""
        whole = self._whole()
        return unit(whole) if self.normalised else whole

    def added(self) -> Tensor:
        """Return the weighted part of each piece in the queries, [B, P, n_q, D]."""
        added = self.weights[:, :, None, None] * self.pieces
        return added / self._whole().norm(dim=2, keepdim=True)[:, None] if self.normalised else added

    def _whole(self) -> Tensor:
        return self.base + torch.einsum("bp,bpqd->bqd", self.weights, self.pieces)


@dataclass(frozen=True)
class Query:
    """Composed queries: ``embeddings`` [B, n_q, D], and the parts that explain them.

    If the method has them: ``attribute_embeddings`` [B, A, n_q, D], the query of each attribute alone,
    ``attribute_weights`` [B, A], and the queries' ``parts``.
    """

    embeddings: Tensor
    attribute_embeddings: Tensor | None = None
    attribute_weights: Tensor | None = None
    parts: QueryParts | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """The input of a training step: B triplets, and the C distinct images of their targets and negatives."""

    reference: Tensor
    """Image tokens [B, M, W]."""
    text: TextBatch
    candidates: Tensor
    """Image tokens [C, M, W] of the distinct images of targets and negatives."""
    targets: Tensor
    """[B] places of the targets among the candidates."""
    negatives: Tensor
    """[B, K] places of the drawn negatives; K = 0 if none are drawn."""
    right: Tensor
    """[B, C] bool: known right answers among the candidates."""
    attribute_values: Tensor
    """[C, K] true attributes of the candidates in the order of the heads' columns, or ``UNKNOWN_CODE``."""
    reverse_text: TextBatch | None = None
    """Texts of the way back, from the target to the reference, if the method uses them."""
    asked: Tensor | None = None
    """[B, K] whether a text requests each of the heads' columns: 1, 0 or ``UNKNOWN_CODE``."""
    progress: float = 0.0
    """Share of the training that is done, 0 to 1."""


@dataclass(frozen=True)
class MethodContext:
    """What a method is built with besides the backbone.

    ``lexicon_ids``: tokens of each attribute's lexicon, in the order of the attributes.
    ``columns``: catalogue column -> place of its attribute. ``vocabularies`` are those attributes.
    ``placeholder``: the token that textual inversion replaces. ``text_encoder`` encodes further sentences
    of a method's training.
    """

    lexicon_ids: Sequence[Tensor] = ()
    columns: Mapping[str, int] = field(default_factory=dict)
    heads: AttributeHeads | None = None
    vocabularies: Sequence[Vocabulary] = ()
    placeholder: Placeholder | None = None
    text_encoder: TextEncoder | None = None


class Method(nn.Module, ABC):
    """A way to compose a reference image and a text into a query over image embeddings."""

    name: ClassVar[str]
    options_type: ClassVar[type[MethodOptions]]
    score_rule: ScoreRule = "max_t"
    published_keys: ClassVar[PublishedKeys | None] = None
    """Names in the state dict of the published code, if there are published checkpoints."""

    requires: ClassVar[frozenset[Capability]] = frozenset()
    """Capabilities that an encoder must provide besides image tokens."""

    published_squash: ClassVar[bool] = False
    """Whether the published code resizes pictures to a square instead of padding and cropping."""

    parser: Parser | None = None
    """The parser that reads texts besides the method's text encoder, if there is one."""

    learns_gallery: bool = False
    """Whether :meth:`fit_targets` must see pictures of the gallery before embedding."""

    only_evaluated: ClassVar[tuple[str, ...]] = ()
    """Parts that stay in evaluation mode while the method is trained, because they are frozen."""

    def __init__(self, backbone: Encoder, options: MethodOptions | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        # Another method that was trained on the same backbone may have frozen parts of it.
        backbone.requires_grad_(True)
        backbone.freeze_tower()

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.backbone.device

    def text(self, captions: Sequence[str]) -> str:
        """Join the captions of a triplet to the modification text that the method reads."""
        return join_fashioniq(captions)

    def reverse_text(self, captions: Sequence[str]) -> str | None:
        """Return the text of the way back, from target to reference; None if the method does not use it."""
        return None

    @classmethod
    def build(cls, backbone: Encoder, options: MethodOptions, context: MethodContext) -> Self:
        """Return a fresh, untrained method. ``options`` are of :attr:`options_type`.

        Raises :class:`DataError` if the encoder lacks a required capability, or the context is incomplete.
        """
        check_fit(cls, backbone)
        return cls.from_context(backbone, options, context)

    @classmethod
    def from_context(cls, backbone: Any, options: MethodOptions, context: MethodContext) -> Self:
        """Build the method on a ``backbone`` that provides everything that it requires.

        Default: only the backbone and the options are used. A method that needs more overrides this.
        """
        return cls(backbone, options)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but :attr:`only_evaluated`."""
        super().train(mode)
        for name in self.only_evaluated if mode else ():
            getattr(self, name).eval()
        return self

    @property
    def weighted_attributes(self) -> tuple[int, ...]:
        """The places of the attributes whose weights a user may set; those of ``Query.parts``."""
        return ()

    @property
    def target_shape(self) -> tuple[int, int]:
        """Number of vectors and width (n_t, D) of a target embedding."""
        sizes = self.backbone.sizes
        return sizes.target_tokens, sizes.embedding

    @abstractmethod
    def embed_query(self, reference: Tensor, text: TextBatch) -> Query:
        """Compose image tokens [B, M, W] and texts into queries."""

    def embed_text(self, text: TextBatch) -> Tensor | None:
        """Embed texts without a reference as queries [B, n_q, D]. Default: None, for no such embedding."""
        return None

    def embed_target(self, tokens: Tensor) -> Tensor:
        """Turn image tokens [N, M, W] into target embeddings [N, n_t, D]."""
        return self.backbone.target_embeddings(tokens)

    def target_state(self) -> dict[str, Tensor]:
        """Return the weights after the tower that target embeddings depend on, by name.

        An index is bound to them. A method whose targets depend on other weights overrides this.
        """
        return self.backbone.image_state("backbone.")

    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        """Adapt to training images, in batches of image tokens [N, M, W]. Default: do nothing."""

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        """The columns whose values target embeddings hold, and those values, both in their order there."""
        return {}

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss; training minimises their sum."""

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Return the loss's negatives among the candidates, [B, C] bool. Default: all but the target."""
        return ~F.one_hot(batch.targets, len(batch.candidates)).bool()

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Run all passes of a step in one call, as distributed training needs it."""
        return self.loss(batch)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are not pretrained, which are trained at a higher rate."""
        known = {id(parameter) for parameter in self.backbone.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in known]

    @torch.no_grad()
    def after_step(self) -> None:
        """Clip parameters to their bounds, after every optimiser step. Default: do nothing."""


class PooledMethod(Method):
    """A method whose queries and targets are one vector each; targets are pooled image features.

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
        """Return raw features [B, D] of texts. Default: those of the backbone."""
        return self.backbone.pooled_text(text)

    def embed_target(self, tokens: Tensor) -> Tensor:
        """Turn image tokens [N, M, W] into unit vectors [N, 1, D]."""
        return unit(self.backbone.pooled_image(tokens))[:, None]


METHODS: dict[str, type[Method]] = {}
"""The registered methods by name."""


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Register a :class:`Method` for recipes and checkpoints under ``name``."""

    def add(method: type[Method]) -> type[Method]:
        method.name = name
        METHODS[name] = method
        return method

    return add


def method_named(name: str) -> type[Method]:
    """Return the method ``name``; raises :class:`DataError` that names the nearest one."""
    # Most methods are in the file of their name; importing only that is faster.
    if name not in METHODS and name in _files():
        import_module(f"{__package__}.{name}")
    known = METHODS if name in METHODS else all_methods()
    if name not in known:
        raise DataError(f"there is no method {name!r}{nearest(name, known)}")
    return known[name]


def all_methods() -> Mapping[str, type[Method]]:
    """Import every file of this folder and return all methods by name."""
    for file in _files():
        import_module(f"{__package__}.{file}")
    return METHODS


def check_fit(method: type[Method], encoder: Encoder) -> None:
    """Raise :class:`DataError` if ``encoder`` lacks what ``method`` requires; it names encoders that fit."""
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
