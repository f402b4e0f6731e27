"""The contract of a method: how it embeds a query and a target, and what it is trained with.

A method is one file that defines one registered subclass of :class:`Method`; everything else
(mining, the loop, evaluation, the index) speaks to it through this contract.
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
        """Raise ``ValueError`` where these options and the negatives contradict each other."""


class InBatchOptions(MethodOptions):
    """Options of a method whose loss finds its negatives within the batch."""

    def check_negatives(self, negatives: NegativeSampling) -> None:
        """Refuse drawn negatives, which no loss would use."""
        if negatives.choose != "none":
            raise ValueError("the method contrasts within the batch: set negatives.choose to none")


REQUESTED = 0.5
"""From this probability on, a text is said to ask of a column."""


@dataclass(frozen=True)
class QueryParts:
    """How queries are put together: ``base`` + Σ_p ``weights``[:, p] · ``pieces``[:, p].

    A piece is what an attribute adds at weight 1, or what one catalogue column of an attribute does.
    """

    base: Tensor
    """[B, n_q, D]"""
    pieces: Tensor
    """[B, P, n_q, D]"""
    weights: Tensor
    """[B, P], as the text decided them."""
    owners: tuple[int, ...]
    """The place of each piece's attribute."""
    columns: tuple[str, ...] = ()
    """Each piece's column, where pieces are columns."""
    normalised: bool = False
    """Whether the sum is made unit vectors."""
    asked: Tensor | None = None
    """[B, P] the probability that the text asks of a column, where a method says it."""
    wanted: tuple[Tensor, ...] = ()
    """[B, values] a column: the distribution of values that is wanted, where a method says it."""
    unread: tuple[tuple[str, ...], ...] | None = None
    """For each query the parts of its text that had no effect, where a method says it."""
    reads_all: bool = False
    """Whether ``base`` is made of the whole text, so that no word of it is without effect."""
    slices: SlicedValues | None = None
    """How pieces are made of wanted values, where a query is one vector with a slice a column."""

    def embeddings(self) -> Tensor:
        """Return the queries [B, n_q, D]."""
        whole = self._whole()
        return unit(whole) if self.normalised else whole

    def added(self) -> Tensor:
        """What each piece adds to the queries as they are, [B, P, n_q, D]."""
        added = self.weights[:, :, None, None] * self.pieces
        return added / self._whole().norm(dim=2, keepdim=True)[:, None] if self.normalised else added

    def _whole(self) -> Tensor:
        return self.base + torch.einsum("bp,bpqd->bqd", self.weights, self.pieces)


@dataclass(frozen=True)
class Query:
    """Composed queries: ``embeddings`` [B, n_q, D], and the parts that explain them.

    ``attribute_embeddings`` [B, A, n_q, D], the query of each attribute alone,
    ``attribute_weights`` [B, A], and how the queries are put together, where a method has them.
    """

    embeddings: Tensor
    attribute_embeddings: Tensor | None = None
    attribute_weights: Tensor | None = None
    parts: QueryParts | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """What a method sees of one step: B triplets and the C distinct images they point at."""

    reference: Tensor
    """Image tokens [B, M, W]."""
    text: TextBatch
    candidates: Tensor
    """Image tokens [C, M, W] of all targets and negatives, each distinct image once."""
    targets: Tensor
    """[B] places of the targets among the candidates."""
    negatives: Tensor
    """[B, K] places of the drawn negatives; K = 0 where none are drawn."""
    right: Tensor
    """[B, C] bool: candidates that the data set knows to be right answers."""
    attribute_values: Tensor
    """[C, K] true attributes of the candidates in the order of the heads' columns, or ``UNKNOWN_CODE``."""
    reverse_text: TextBatch | None = None
    """Texts of the way back, from the target to the reference, where the method has them."""
    asked: Tensor | None = None
    """[B, K] whether a text asks of each of the heads' columns: 1, 0 or ``UNKNOWN_CODE``."""
    progress: float = 0.0
    """Share of the training that lies behind this step, 0 to 1."""


@dataclass(frozen=True)
class MethodContext:
    """What surrounds the backbone when a method is built.

    ``lexicon_ids``: tokens of each attribute's lexicon, in the order of the attributes.
    ``columns``: catalogue column -> place of the attribute that speaks of it. ``vocabularies`` are
    those attributes. ``placeholder``: the token that textual inversion writes over.
    ``text_encoder`` reads sentences that a method trains with beside the captions.
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
    """Names in the state dict of the published code, where people own such checkpoints."""

    requires: ClassVar[frozenset[Capability]] = frozenset()
    """What an encoder must provide besides image tokens."""

    published_squash: ClassVar[bool] = False
    """Whether the published code squashes pictures to a square; it pads and crops them otherwise."""

    parser: Parser | None = None
    """What reads its texts, where it is not the method's own text encoder alone."""

    learns_gallery: bool = False
    """Whether :meth:`fit_targets` must see pictures of the gallery before anything is embedded."""

    only_evaluated: ClassVar[tuple[str, ...]] = ()
    """Parts that stay in evaluation mode while the method is trained, because they are frozen."""

    def __init__(self, backbone: Encoder, options: MethodOptions | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        # A method trained before on the same backbone may have frozen parts of it.
        backbone.requires_grad_(True)
        backbone.freeze_tower()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.device

    def text(self, captions: Sequence[str]) -> str:
        """Return the modification text as the method reads it, from the captions of a triplet."""
        return join_fashioniq(captions)

    def reverse_text(self, captions: Sequence[str]) -> str | None:
        """Return the text of the way back, from target to reference; None where a method does not go it."""
        return None

    @classmethod
    def build(cls, backbone: Encoder, options: MethodOptions, context: MethodContext) -> Self:
        """Return a fresh, untrained method. ``options`` are of :attr:`options_type`.

        Raises :class:`DataError` where the encoder does not provide what the method requires, or the context
        lacks something.
        """
        check_fit(cls, backbone)
        return cls.from_context(backbone, options, context)

    @classmethod
    def from_context(cls, backbone: Any, options: MethodOptions, context: MethodContext) -> Self:
        """As :meth:`build`, for a ``backbone`` that provides what the method requires.

        Default: made of the backbone and the options alone. A method that needs more overrides this.
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
        """The places of the attributes whose weights a person may set; those of ``Query.parts``."""
        return ()

    @property
    def target_shape(self) -> tuple[int, int]:
        """Tokens and width (n_t, D) of a target embedding."""
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
        """Return the weights behind the tower that make target embeddings, by name.

        They name what an index belongs to. A method that makes its targets of other weights overrides this.
        """
        return self.backbone.image_state("backbone.")

    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        """See training images, in batches of image tokens [N, M, W], before training. Default: do nothing."""

    @property
    def target_values(self) -> Mapping[str, Sequence[str]]:
        """The columns whose values target embeddings hold, and those values, both in their order there."""
        return {}

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the weighted terms of the loss; their sum is what is minimised."""

    def contrasted(self, batch: TrainingBatch) -> Tensor:
        """Which candidates the loss takes for negatives, [B, C] bool: by default all but the target."""
        return ~F.one_hot(batch.targets, len(batch.candidates)).bool()

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Run all passes of a step in one call, as distributed training needs it."""
        return self.loss(batch)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return parameters that no pretrained backbone has, trained at a higher rate."""
        known = {id(parameter) for parameter in self.backbone.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in known]

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring parameters with bounds back into them; called after every optimiser step."""


class PooledMethod(Method):
    """A method with one vector a query and one a target: the backbone's pooled image feature.

    Subclasses whose targets are made otherwise override :meth:`embed_target`.
    """

    score_rule: ScoreRule = "dot"
    requires = frozenset({"image", "text"})

    @property
    def target_shape(self) -> tuple[int, int]:
        return 1, self.backbone.sizes.embedding

    def embed_text(self, text: TextBatch) -> Tensor:
        return unit(self.backbone.pooled_text(text))[:, None]

    def embed_target(self, tokens: Tensor) -> Tensor:
        """Turn image tokens [N, M, W] into unit vectors [N, 1, D]."""
        return unit(self.backbone.pooled_image(tokens))[:, None]


METHODS: dict[str, type[Method]] = {}
"""The methods whose files are imported, by name."""


def register(name: str) -> Callable[[type[Method]], type[Method]]:
    """Make a :class:`Method` known to recipes and checkpoints under ``name``."""

    def add(method: type[Method]) -> type[Method]:
        method.name = name
        METHODS[name] = method
        return method

    return add


def method_named(name: str) -> type[Method]:
    """Return the method ``name``; raises :class:`DataError` that names the nearest one."""
    # Most methods are in the file of their name, and importing that alone is quicker.
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
    """Raise :class:`DataError` where ``encoder`` lacks what ``method`` requires; it names what fits."""
    needed = method.requires | {"tokens"}
    lacking = [name for name in CAPABILITIES if name in needed - encoder.provides]
    if not lacking:
        return
    kinds = [kind for kind, known in sorted(all_encoders().items()) if needed <= known.provides]
    fitting = {name: known for name, known in all_methods().items() if known.requires <= encoder.provides}
    pairs = [f"{method.name} with {kinds[0]}"] if kinds else []
    if fitting:
        # The one that uses the most of what the method asks for and the encoder has.
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
