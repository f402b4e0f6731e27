"""A model and its index, asked many things at once; the model runs in the worker's thread alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from dqecir.errors import EngineError
from dqecir.index.contract import Hit, Index
from dqecir.index.filters import Filter
from dqecir.io.recent import Recent
from dqecir.language.numeric_constraints import NumericConstraint
from dqecir.language.suggesting import Suggester
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.methods.method import Query
from dqecir.model.composed_model import ComposedModel
from dqecir.search.explanation import (
    Contribution,
    HeatMap,
    RequestedValue,
    attribute_scores,
    heat_maps,
    requested_values,
)
from dqecir.search.steering import Steering, attribute_weights, boost_requested, steered

State = tuple[str, int, int]
"""What an item's picture is known by."""

SAMPLE = 64
"""Items that an answer is compared with, to say what spoke for it."""


@dataclass(frozen=True)
class Picture:
    """A reference: its pixels [3, S, S], or its image tokens [M, W] where they were kept.

    ``state`` is what an item's picture is known by, so that its tokens can be kept.
    """

    pixels: Tensor | None = None
    tokens: Tensor | None = None
    state: State | None = None


@dataclass(frozen=True)
class Question:
    """One search."""

    picture: Picture
    text: str
    k: int
    where: Filter | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bounds: tuple[NumericConstraint, ...] = ()
    """What the text said of numbers; they are part of ``where`` and no longer of ``text``."""
    spoke: bool = True


@dataclass(frozen=True)
class Looked:
    """A search and one of its answers, as pictures, to be explained."""

    reference: Image.Image
    text: str
    target: Image.Image
    weights: Mapping[str, float] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What one search found, and why."""

    hits: list[Hit]
    spoke: list[tuple[Contribution, ...]]
    """For each hit; empty where it was not asked for."""
    used: dict[str, float]
    own: dict[str, float]
    asked: tuple[RequestedValue, ...]
    bounds: tuple[NumericConstraint, ...]
    generation: int


class Searcher:
    """One model over one index."""

    def __init__(
        self, name: str, model: ComposedModel, index: Index, tokens_kept: int, refresh: float
    ) -> None:
        index.check_model(model)
        self.name, self.model, self.index = name, model.eval(), index
        self.attributes = [vocabulary.name for vocabulary in model.vocabularies]
        self._values = {} if model.heads is None else model.heads.config.columns
        self._tokens: Recent[Tensor] = Recent(tokens_kept, lambda kept: kept.numel() * kept.element_size())
        self._refresh, self._refreshed = refresh, time.monotonic()
        self._sample: tuple[int, Tensor] | None = None

    @property
    def title(self) -> str:
        """What a person is told of the model."""
        return f"{self.model.method.name} ({self.model.fingerprint})"

    def suggester(self) -> Suggester:
        """What completes texts in the words that the model was taught."""
        columns = {name: [value for value in values if value] for name, values in self._values.items()}
        return Suggester(self.model.vocabularies or shipped_vocabularies(columns), columns)

    @property
    def weighted(self) -> list[str]:
        """The attributes whose weights can be set."""
        return [self.attributes[place] for place in sorted(set(self.model.method.weighted_attributes))]

    @property
    def generation(self) -> int:
        """The generation of the index that is searched."""
        return self.index.generation

    def kept(self, state: State) -> Tensor | None:
        """The image tokens [M, W] of a picture, where they are kept and nobody need decode it."""
        return self._tokens.get(state)

    def see_changes(self) -> None:
        """See what other processes wrote, where it is time to look."""
        now = time.monotonic()
        if now - self._refreshed >= self._refresh:
            self._refreshed = now
            self.index.refresh()

    def newest(self) -> int:
        """The generation, once changes are seen."""
        self.see_changes()
        return self.generation

    @torch.no_grad()
    def search(self, questions: Sequence[Question]) -> list[Found]:
        """Answer questions; those with one filter are searched for together."""
        self.see_changes()
        query = boost_requested(self._compose([(question.picture, question.text) for question in questions]))
        own = attribute_weights(query, self.attributes)
        rule = self.model.method.score_rule
        query = steered(query, [self._steering(question) for question in questions], self.attributes, rule)
        used = attribute_weights(query, self.attributes)
        asked = requested_values(query, self._values)
        generation = self.generation
        hits = self._hits(query, questions)
        explained = [found if question.spoke else [] for found, question in zip(hits, questions, strict=True)]
        spoke = self._spoke(query, explained)
        rows = zip(hits, spoke, used, own, asked, strict=True)
        return [
            Found(*row, question.bounds, generation) for row, question in zip(rows, questions, strict=True)
        ]

    @torch.no_grad()
    def embed_queries(self, asked: Sequence[tuple[Picture, str]]) -> list[list[list[float]]]:
        """Query embeddings, as lists of vectors."""
        found: list[list[list[float]]] = self._compose(asked).embeddings.tolist()
        return found

    @torch.no_grad()
    def embed_items(self, pictures: Sequence[Picture]) -> list[Tensor]:
        """Target embeddings [n_t, D] of pictures."""
        return list(self.model.method.embed_target(self._image_tokens(pictures)).cpu())

    def explain(self, asked: Sequence[Looked]) -> list[tuple[HeatMap, HeatMap]]:
        """Where each query looked in its reference and in an answer; one after the other."""
        return [
            heat_maps(self.model, looked.reference, looked.text, looked.target, self._steering(looked))
            for looked in asked
        ]

    def _compose(self, asked: Sequence[tuple[Picture, str]]) -> Query:
        texts = [self.model.method.text((text,)) for _, text in asked]
        encoded = self.model.text_encoder(texts, blank=True).to(self.model.device)
        return self.model.method.embed_query(self._image_tokens([picture for picture, _ in asked]), encoded)

    def _image_tokens(self, pictures: Sequence[Picture]) -> Tensor:
        """Image tokens [B, M, W]; those that are not kept go through the tower together."""
        new = [picture for picture in pictures if picture.tokens is None]
        if not new:
            return torch.stack([picture.tokens for picture in pictures if picture.tokens is not None])
        pixels = [picture.pixels for picture in new if picture.pixels is not None]
        made = iter(self.model.backbone.image_tokens(torch.stack(pixels)))
        rows = []
        for picture in pictures:
            row = next(made) if picture.tokens is None else picture.tokens
            if picture.tokens is None and picture.state is not None:
                # A copy, because a row would hold all of its batch.
                self._tokens.put(picture.state, row.clone())
            rows.append(row)
        return torch.stack(rows)

    def _steering(self, question: Question | Looked) -> Steering:
        more, less = (self.index.tokens(ids) if ids else None for ids in (question.more, question.less))
        return Steering(question.weights, more, less)

    def _hits(self, query: Query, questions: Sequence[Question]) -> list[list[Hit]]:
        together: dict[Filter | None, list[int]] = {}
        for row, question in enumerate(questions):
            together.setdefault(question.where, []).append(row)
        found: list[list[Hit]] = [[] for _ in questions]
        embeddings = query.embeddings.cpu()
        for where, rows in together.items():
            most = max(questions[row].k for row in rows)
            exclude = [questions[row].exclude for row in rows]
            for row, hits in zip(
                rows, self.index.search(embeddings[rows], most, exclude, where), strict=True
            ):
                found[row] = hits[: questions[row].k]
        return found

    def _spoke(self, query: Query, hits: Sequence[Sequence[Hit]]) -> list[list[tuple[Contribution, ...]]]:
        ids = [hit.id for found in hits for hit in found]
        nothing: list[list[tuple[Contribution, ...]]] = [[() for _ in found] for found in hits]
        if query.parts is None or not ids:
            return nothing
        try:
            tokens = self.index.tokens(ids).split([len(found) for found in hits])
            sample = self._sampled()
        except EngineError:
            # An item was deleted since it was found; its answer stands, unexplained.
            return nothing
        return attribute_scores(query, tokens, sample, self.attributes, self.model.method.score_rule)

    def _sampled(self) -> Tensor:
        """Tokens of a few items, the same until the index has become another."""
        if self._sample is None or not 0.5 < len(self.index) / max(1, self._sample[0]) < 2:
            self._sample = len(self.index), self.index.tokens(self.index.sample(SAMPLE, seed=0))
        return self._sample[1]
