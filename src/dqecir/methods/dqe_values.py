"""DQE with attribute values: a query contains the values that the target should show, column by column.

A text is read twice: together with the image, for the base query, and alone, for its requests. For every
catalogue column c, the text T decides how far the column is requested, m_c (0 to 1), and which values, a_c.
As far as it is not requested, the values p_r,c that the attribute head predicts for the reference are kept.
The score of a candidate is the log-probability that it shows the wanted values of every column, plus the base
score:

    s = w_0 max_k q₀·v_k + Σ_c κ_c exp(γ_c m_c(T)) log Σ_value q_c(value) p_v,c(value),
    q_c = m_c(T) a_c + (1 - m_c(T)) p_r,c

Here q₀ is the base query, v_k are the target's tokens, and p_v,c are the values that the head predicts for
the target. The attribute weights are m_c(T): they mix the request with the reference's values, and weigh the
column relative to others. They are learned, and supervised if the data set says which columns a text
requests. The published sub-queries are compared with the same target tokens as the base query, and so repeat
it; here a colour is compared with a colour.

Rules with the vocabularies read a text first, clause by clause; a learned reader reads the clauses that they
cannot read. In training, half of the clauses that the rules can read are given to the reader instead, so that
it learns to generalise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dqecir.data.cells import UNKNOWN_CODE
from dqecir.encoders.blip2 import Blip2
from dqecir.encoders.encoder import TextBatch, unit
from dqecir.errors import DataError
from dqecir.language.parsing import Mention, Parser
from dqecir.methods.attribute_heads import AttributeHeads, TextEncoder
from dqecir.methods.headed import HeadedDqe, HeadedOptions
from dqecir.methods.method import (
    REQUESTED,
    MethodContext,
    MethodOptions,
    Query,
    QueryParts,
    TrainingBatch,
    register,
)
from dqecir.methods.value_vectors import SlicedValues, ValueLayout, ValueSlices, ValueTokens
from dqecir.settings import nearest

SURE = 8.0
"""Logit of the weight m of a column that the rules read as requested; it gives m = 0.9997."""

UNLIKELY = 0.02
"""Added to the probability of a true value before its logarithm in the loss, because tables are sometimes
wrong."""


class DqeValuesOptions(HeadedOptions):
    """Options of DQE with attribute values, besides those of DQE."""

    columns: tuple[str, ...] | None = None
    """Catalogue columns that are compared, each with an attribute head. A column that no vocabulary in
    ``attributes`` knows gets a vocabulary of its values' names. Default: all columns of ``attributes`` that
    have heads."""
    rule: Literal["likelihood", "dot"] = "likelihood"
    """The score rule. ``likelihood``: the log-probability that the candidate shows the wanted values, plus
    the base score. ``dot``: one inner product of two vectors that approximates it, which every search engine
    can compute."""
    weights: Literal["text_gate", "scalar", "fixed"] = "text_gate"
    """Weights m_c, which say how far a text requests column c: read from the text (``text_gate``), learned
    but equal for all texts, or fixed at 1."""
    emphasis: float = 0.4
    """Initial γ_c: e^γ is the factor by which a requested column counts more than others. γ_c is learned; an
    initial value of 0 is as good (``no emphasis`` in docs/ablations.md)."""
    value_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss that makes the query's values likely to be the target's true values."""
    mention_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss that makes the weights m_c predict which columns a text requests, if the data set
    says that."""
    base_weight: float = 0.1
    """Initial w_0, the weight of the base score relative to the columns."""
    head_scale: float = Field(default=0.07, gt=0)
    """Scale of log-probabilities relative to cosines [κ]; if it equals the temperature of the loss, they
    count in full."""
    hints: bool = True
    """Whether rules read the requests of a text first, and the learned reader only the clauses that they
    cannot read. Otherwise the learned reader reads everything."""
    hints_withheld: float = Field(default=0.5, ge=0, le=1)
    """Share of the clauses that the rules can read, but that in training are left to the learned reader."""
    words_hidden: float = Field(default=0.3, ge=0, le=1)
    """Share of the tokens of a text that are hidden from the learned reader in training."""


@dataclass(frozen=True)
class Hints:
    """What the rules read in B texts about C columns.

    ``said`` [B, C]: 1 if the text requests the column, -1 if the rules read the whole text and it does not, 0
    if the learned reader decides. ``shares``: for each column probabilities [B, values], equal for all
    requested values and 0 for others. ``clauses``: for each text the clauses that the rules did not read;
    ``left``: the same clauses, joined to one text and tokenised, for the learned reader.
    """

    said: Tensor
    shares: list[Tensor]
    left: TextBatch
    clauses: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Composed:
    """Queries, and what the losses also need: the values that they ask for.

    ``wanted``: for each column c the distribution q_c [B, values] of the values that the target should have.
    ``asks`` [B, C]: logits of the weights m_c, which say how far the text requests each column.
    """

    query: Query
    wanted: list[Tensor]
    asks: Tensor


@register("dqe_values")
class DqeValues(HeadedDqe):
    """Queries are [base; wanted values of each column], targets [base tokens; shown values of each column].

    With the rule ``dot`` each is one vector (:class:`ValueSlices`).
    """

    options_type: ClassVar[type[MethodOptions]] = DqeValuesOptions

    def __init__(
        self,
        backbone: Blip2,
        options: DqeValuesOptions,
        heads: AttributeHeads,
        places: dict[str, int],
        parser: Parser | None,
        text_encoder: TextEncoder,
    ) -> None:
        # Values replace the sub-queries of the base class, which are not built.
        super().__init__(backbone, options.model_copy(update={"attributes": ()}), heads, places)
        self.options: DqeValuesOptions = options
        self.score_rule = options.rule
        tokens, width = super().target_shape
        self.layout: ValueLayout = ValueTokens(self.sizes, tokens, width)
        if options.rule == "dot":
            self.layout = ValueSlices(self.sizes, width)
        self.parser, self.text_encoder = parser, text_encoder
        tokenizer = text_encoder.tokenizer
        self.unknown_piece = tokenizer.unknown_id
        self.special_pieces: Tensor
        self.register_buffer("special_pieces", torch.tensor(tokenizer.special_ids), persistent=False)
        width, count = backbone.config.hidden_size, len(self.columns)
        self.prompts = nn.Parameter(torch.zeros(count, width))
        self.key = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.key.weight)
        self.word_norm = nn.LayerNorm(width)
        self.read_norm = nn.LayerNorm(width)
        self.lexicon_bias = nn.Parameter(torch.full((count,), options.lexicon_bias))
        self.asks = nn.Parameter(torch.zeros(count, width))
        self.asks_bias = nn.Parameter(torch.zeros(count))
        self.values = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)
        # How a comparison changes the reference's value; for "darker", the darker colours of each colour.
        self.moves = nn.ModuleList(nn.Linear(width + size, size) for size in self.sizes)
        for reading in (*self.values, *self.moves):
            nn.init.zeros_(reading.weight)
            nn.init.zeros_(reading.bias)
        self.column_scale = nn.Parameter(torch.ones(count))  # κ_c, in units of head_scale
        self.emphasis = nn.Parameter(torch.full((count,), options.emphasis))  # γ_c
        self.base_scale = nn.Parameter(torch.tensor(options.base_weight))  # w_0

    @classmethod
    def from_context(cls, backbone: Blip2, options: MethodOptions, context: MethodContext) -> DqeValues:
        assert isinstance(options, DqeValuesOptions)
        if context.heads is None or context.text_encoder is None or not context.columns:
            raise DataError(
                "dqe_values needs a model with attribute heads for the attributes it names: pretrain one "
                "with dqecir pretrain, or train dqe instead"
            )
        heads = context.heads.config.columns
        for column in options.columns or ():
            if column not in heads:
                raise DataError(f"the model has no attribute head for {column!r}{nearest(column, heads)}")
        places = {
            column: place
            for column, place in context.columns.items()
            if options.columns is None or column in options.columns
        }
        largest = max(places, key=lambda column: len(heads[column]))
        if options.rule == "likelihood" and len(heads[largest]) > backbone.config.embedding_size:
            raise DataError(
                f"the column {largest!r} has {len(heads[largest])} values, more than the "
                f"{backbone.config.embedding_size} numbers of an embedding: leave it out of columns, or set "
                "rule to dot"
            )
        parser = None
        if options.hints:
            parser = Parser(context.vocabularies, {column: heads[column] for column in places})
        method = cls(backbone, options, context.heads, places, parser, context.text_encoder)
        words = backbone.embeddings.word_embeddings.weight.detach()
        lexicons = torch.stack([words[context.lexicon_ids[owner]].mean(dim=0) for owner in method.owners])
        method.prompts.data.copy_(lexicons)
        return method

    @property
    def target_shape(self) -> tuple[int, int]:
        return self.layout.shape

    def target_state(self) -> dict[str, Tensor]:
        own = self.layout.target_state() if isinstance(self.layout, ValueSlices) else {}
        return super().target_state() | {f"layout.{name}": value for name, value in own.items()}

    @torch.no_grad()
    def fit_targets(self, tokens: Iterable[Tensor]) -> None:
        if isinstance(self.layout, ValueSlices):
            shown = zip(*(self.shown_values(some.to(self.device)) for some in tokens), strict=True)
            self.layout.fit([torch.cat(column) for column in shown])

    def embed_target(self, tokens: Tensor) -> Tensor:
        return self.layout.targets(self.backbone.target_embeddings(tokens), self.shown_values(tokens))

    def embed_query(self, reference: Tensor, text: TextBatch, order: Tensor | None = None) -> Query:
        return self.compose(reference, text, order).query

    def compose(self, reference: Tensor, text: TextBatch, order: Tensor | None = None) -> Composed:
        """Compose queries with their parts.

        ``reference`` are image tokens [B, M, W]. ``order`` [B] exchanges attribute weights, to test them: row
        b gets those of row ``order[b]``. None: each row keeps its own.
        """
        states, _ = self.backbone.composed_states(reference, text.ids, text.mask)
        base = unit(self.backbone.text_projection(states.mean(dim=1)))  # [B, D]
        shown = self.shown_values(reference)
        hints = self._hints(text, shown) if self.parser is not None else None
        left = text if hints is None else hints.left
        words = self.backbone.text_states(self.hide_pieces(left), left.mask)  # [B, L, H]
        read = self.read_norm(self._read(words, left))  # [B, C, H]
        asks = self._asks(read, hints)
        if order is not None:
            asks = asks[order]
        wanted = [
            self._wanted(place, read[:, place], asks[:, place], known, hints)
            for place, known in enumerate(shown)
        ]
        weights = asks.sigmoid()  # m [B, C]
        scales = self.options.head_scale * self.column_scale
        emphases = (self.emphasis * weights).exp()
        pieces = self.layout.pieces(wanted)  # [B, C, n_q, D]
        added = (scales * emphases)[:, :, None, None] * pieces
        whole = self.layout.base(self.base_scale * base)
        parts = QueryParts(
            whole,
            scales[:, None, None] * pieces,
            emphases,
            self.owners,
            self.columns,
            asked=weights if self.options.weights == "text_gate" else None,
            wanted=tuple(wanted),
            unread=None if hints is None or self.training else self._unread(weights, hints),
            slices=SlicedValues(self.layout, scales) if isinstance(self.layout, ValueSlices) else None,
        )
        embedding = whole + added.sum(dim=1)
        of_attributes = self._by_attribute(added)
        return Composed(
            Query(embedding, of_attributes, self._attribute_weights(weights), parts), wanted, asks
        )

    def _asks(self, read: Tensor, hints: Hints | None) -> Tensor:
        """Return the logits [B, C] of the weights m, which say how far each text requests each column.

        ``read`` [B, C, H] are the learned reader's states; ``hints`` are None without rules.
        """
        if self.options.weights == "fixed":
            return read.new_full(read.shape[:2], torch.inf, dtype=torch.float32)
        if self.options.weights == "scalar":
            return self.asks_bias.expand(read.shape[:2])
        asks = torch.einsum("bch,ch->bc", read, self.asks).float() + self.asks_bias
        return asks if hints is None else torch.where(hints.said == 0, asks, SURE * hints.said)

    def _unread(self, weights: Tensor, hints: Hints) -> tuple[tuple[str, ...], ...]:
        """Return for each text the clauses that neither the rules nor the learned reader read.

        ``weights`` [B, C] are m. The reader does not say from which clause a request comes; if it read any
        request in a text, no clause of that text is returned.
        """
        found = ((weights >= REQUESTED) & (hints.said == 0)).any(dim=1).tolist()
        return tuple(() if used else left for used, left in zip(found, hints.clauses, strict=True))

    def hide_pieces(self, text: TextBatch) -> Tensor:
        """Return the token ids of ``text`` [B, L].

        In training, a random share of them (the option ``words_hidden``) is replaced by the unknown token, so
        that a request does not depend on one word; special tokens stay.
        """
        if not self.training:
            return text.ids
        special = torch.isin(text.ids, self.special_pieces)
        hidden = torch.rand(text.ids.shape, device=text.ids.device) < self.options.words_hidden
        return text.ids.masked_fill(hidden & ~special, self.unknown_piece)

    def _read(self, words: Tensor, text: TextBatch) -> Tensor:
        """Return a state of each column [B, C, H], by attention over word states [B, L, H] of ``text``."""
        keys = self.key(self.word_norm(words))
        logits = torch.einsum("ch,blh->bcl", self.prompts, keys).float() / words.shape[2] ** 0.5
        mentioned = text.mentions[:, list(self.owners)].to(logits.dtype)  # [B, C, L]
        logits = logits + self.lexicon_bias[None, :, None] * mentioned
        attention = logits.masked_fill(~text.mask.bool()[:, None], -torch.inf).softmax(dim=2)
        return torch.einsum("bcl,blh->bch", attention.to(words.dtype), words)

    def _hints(self, text: TextBatch, shown: list[Tensor]) -> Hints:
        """Return what the rules read in the texts, and the rest for the learned reader.

        ``shown``: for each column the reference's values [B, values], which comparisons such as "darker"
        change.
        """
        assert self.parser is not None
        if len(text.texts) != len(shown[0]):
            raise DataError(
                "the batch has token ids but not the texts, which this method reads: encode the texts with "
                "the model's text encoder"
            )
        names = [self.heads.config.columns[column] for column in self.columns]
        likely = [values.argmax(dim=1).tolist() for values in shown]
        said = torch.zeros(len(text.texts), len(self.columns))
        shares = [torch.zeros(len(text.texts), size) for size in self.sizes]
        left: list[tuple[str, ...]] = []
        for row, words in enumerate(text.texts):
            read, unread = self.read_clauses(words)
            left.append(tuple(unread))
            if not unread:
                said[row] = -1.0
            reference = {
                column: {names[place][likely[place][row]]: 1.0} for place, column in enumerate(self.columns)
            }
            asked = self.parser.admissible(read, reference)
            for place, column in enumerate(self.columns):
                if column in asked:
                    said[row, place] = 1.0
                    fits = torch.tensor([float(value in asked[column]) for value in names[place]])
                    shares[place][row] = fits / fits.sum()
        device = shown[0].device
        return Hints(
            said.to(device),
            [values.to(device) for values in shares],
            self.text_encoder(list(map(", ".join, left)), blank=True).to(device),
            tuple(left),
        )

    def read_clauses(self, words: str) -> tuple[list[tuple[Mention, ...]], list[str]]:
        """Return the requests of each clause that the rules can read, and the words of all other clauses.

        In training, some of the clauses that they can read are left to the learned reader.
        """
        assert self.parser is not None
        read, unread = [], []
        for clause in self.parser.clauses(words):
            withheld = self.training and float(torch.rand(())) < self.options.hints_withheld
            if clause.readings and not withheld:
                read.append(clause.readings)
            else:
                unread.append(clause.words)
        return read, unread

    def _wanted(self, place: int, read: Tensor, asks: Tensor, known: Tensor, hints: Hints | None) -> Tensor:
        """Return q_c [B, values], the wanted values of the column at ``place``: requested and kept values.

        ``read`` [B, H] are the learned reader's states of the column, ``asks`` [B] the logits of its weight
        m, and ``known`` [B, values] the values that the reference shows. Values that the rules read
        (``hints``) count before those of the learned reader; None: no rules.
        """
        moved = self.moves[place](torch.cat([read, known.to(read.dtype)], dim=1))
        asked = (self.values[place](read) + moved).float().softmax(dim=1)
        if hints is not None:
            asked = torch.where(hints.said[:, place, None] > 0, hints.shares[place], asked)
        share = asks.sigmoid()[:, None]
        return share * asked + (1 - share) * known

    def _attribute_weights(self, weights: Tensor) -> Tensor:
        """Return attribute weights [B, A]: the largest in ``weights`` [B, C] of each attribute's columns."""
        own = [
            weights[:, [place for place, owner in enumerate(self.owners) if owner == attribute]]
            for attribute in range(len(self.options.attributes))
        ]
        return torch.stack([w.amax(dim=1) if w.shape[1] else weights.new_zeros(len(w)) for w in own], dim=1)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        composed = self.compose(batch.reference, batch.text)
        terms = self.score_terms(composed.query, batch)
        places = list(self.head_places)
        true = batch.attribute_values[batch.targets][:, places]  # [B, C]
        if self.options.value_weight > 0:
            losses = [
                F.nll_loss((values + UNLIKELY).log(), true[:, place], ignore_index=UNKNOWN_CODE)
                for place, values in enumerate(composed.wanted)
                if bool((true[:, place] != UNKNOWN_CODE).any())
            ]
            if losses:
                terms["values"] = self.options.value_weight * torch.stack(losses).mean()
        decided = self.options.weights == "text_gate" and self.options.mention_weight > 0
        if decided and batch.asked is not None:
            asked = batch.asked[:, places]
            known = asked != UNKNOWN_CODE
            if bool(known.any()):
                wrong = F.binary_cross_entropy_with_logits(composed.asks[known], asked[known].float())
                terms["mentions"] = self.options.mention_weight * wrong
        return terms
