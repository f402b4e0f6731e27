"""The search engine: one model and one index, from a request to explained results.

:meth:`SearchEngine.prepare` reads a request, and may run in any thread. :meth:`SearchEngine.answer` composes
queries for a batch of prepared requests, searches, and explains the results; only one thread at a time may
call it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dqecir.data.images import StoredPicture
from dqecir.data.payload_fields import SOLD_OUT
from dqecir.errors import DataError, ImageError, ItemPictureError, UnknownItemError
from dqecir.index.contract import AUDIT, Index
from dqecir.index.filters import Equal, Filter, Not, all_of, conjuncts
from dqecir.index.item_preferences import Preference
from dqecir.index.payload_columns import Columns
from dqecir.language.reader import Ask
from dqecir.language.tagging import words_of
from dqecir.methods.method import Query
from dqecir.methods.scoring import score
from dqecir.model.compose import QueryComposer, Reference
from dqecir.model.composed_model import ComposedModel
from dqecir.search.explanation import HeatMap, attribute_scores, heat_maps, readings
from dqecir.search.preferring import preferences
from dqecir.search.product_search import ProductHit, best_products, item_named, named_items
from dqecir.search.request_text import RequestReader, RequestText
from dqecir.search.reranking import Reranker, reranked
from dqecir.search.response import (
    Contribution,
    ProductResult,
    QueryVectors,
    RequestedValue,
    SearchResponse,
    SearchResult,
    TextReading,
)
from dqecir.search.search_request import HEAVIEST_REFERENCE, PreparedRequest, SearchRequest, WeightedReference
from dqecir.search.steering import (
    STRICTEST,
    SteeredQuery,
    Steering,
    boosted_and_steered,
    check_weights,
    garments_of,
)

SAMPLE = 64
"""Number of random items with which a result is compared to find which attributes raised its score, and whose
scores give the unit of preferences."""

_LOG = logging.getLogger(__name__)
_SOLD_OUT_ITEMS = Equal(SOLD_OUT, ("true",))


def picture_file(index: Index, payload: Mapping[str, Any]) -> Path | None:
    """Return the file of the picture that an item's payload names; None if it names no file."""
    return index.picture_path(payload)


class SearchEngine:
    """A model and an index that it made; answers search requests."""

    def __init__(
        self,
        model: ComposedModel,
        index: Index,
        tokens_kept: int = 0,
        reranker: Reranker | None = None,
        stored_picture: Callable[[Index, Mapping[str, Any]], StoredPicture | None] = picture_file,
    ) -> None:
        """Take a model and its index; raises :class:`EngineError` if another model made the index.

        ``tokens_kept`` is the size in bytes of the cache of image tokens of reference pictures; 0: no cache.
        ``reranker`` scores the first candidates again if a request wants it. Default: none.
        ``stored_picture(index, payload)`` returns an item's picture, or None. Default: the file that the
        payload names.
        """
        index.check_model(model)
        self.composer = QueryComposer(model, tokens_kept)
        self.model, self.index = model, index
        self.reranker = reranker
        self._stored_picture = partial(stored_picture, index)
        self.attributes = [vocabulary.name for vocabulary in model.vocabularies]
        # If the model has no attribute heads, take the values that the method itself knows.
        self.values = model.method.target_values if model.heads is None else model.heads.config.columns
        self.garments = garments_of(model.method)
        parser = model.method.parser
        self.reader = RequestReader(index, self.values if parser is None else parser.values, model.tagger)
        self._sample: tuple[int, Tensor] | None = None
        if self._misses_garments():
            _LOG.warning(
                "%s was audited by an earlier version, without holding the garment as searches do: searches "
                "may miss results; audit it again (dqecir index audit --index %s --apply)",
                index.folder,
                index.folder,
            )

    def _misses_garments(self) -> bool:
        """Return whether the index was audited with queries that do not give the garment more weight.

        Searches now do, so they may need more candidates. The result is False if the index has a
        column of garments: then preferences keep the garment, and every item is scored.
        """
        settings = self.index.settings
        outdated = settings is not None and settings.audit < AUDIT and bool(self.garments)
        return outdated and not self.reader.read("").garments

    @property
    def weighted(self) -> list[str]:
        """The attributes whose weights a request may set."""
        return [self.attributes[place] for place in sorted(set(self.model.method.weighted_attributes))]

    @property
    def has_sold_out(self) -> bool:
        """Whether the index knows of any sold-out item."""
        return _is_in(SOLD_OUT, self.index.columns())

    def prepare(self, request: SearchRequest) -> PreparedRequest:
        """Read a request's text, filters and steering, with the newest state of the index.

        Raises ``FilterError`` if the filter does not fit the index, :class:`UnknownItemError` for an id that
        the index does not have, :class:`ItemPictureError` if the picture of a reference item is missing, and
        :class:`DataError` if the request is empty, or a weight, a strictness or a reranker cannot be used.
        """
        begun = time.perf_counter()
        self.index.refresh()
        references = request.all_references
        if not references and not "".join((*request.earlier, request.text)).strip():
            raise DataError("a search needs a picture, an item of the index or a text: give at least one")
        for one in references:
            if not 0 < one.weight <= HEAVIEST_REFERENCE:
                raise DataError(
                    f"the weight of a reference must be more than 0 and at most {HEAVIEST_REFERENCE:g}, not "
                    f"{one.weight}: name items that the results should not resemble as less"
                )
        if not 0 <= request.strictness <= STRICTEST:
            raise DataError(f"strictness must be between 0 and {STRICTEST:g}, not {request.strictness}")
        check_weights(request.weights, self.weighted)
        if request.rerank and self.reranker is None:
            raise DataError(
                "there is no reranker: name one (--reranker, or the retriever's reranker in Python), or "
                "leave out rerank"
            )
        named = named_items(
            self.index, [one.item for one in references], request.more, request.less, request.exclude
        )
        first = next(filter(None, named.references), None)
        said = self.reader.read(request.text, first, request.where, request.earlier)
        if request.earlier and not references and not said.together:
            raise DataError("the turns together request nothing: say what to search for")
        columns = self.index.columns()
        if said.where is not None:
            said.where.check(columns)
        hides_sold_out = not request.sold_out and _is_in(SOLD_OUT, columns)
        allowed = tuple(conjuncts(said.where))
        more, less = (self.index.tokens(ids) if ids else None for ids in (named.more, named.less))
        return PreparedRequest(
            request,
            tuple(map(self._reference, references, named.references, named.payloads)),
            columns,
            said,
            all_of([*allowed, Not(_SOLD_OUT_ITEMS)] if hides_sold_out else allowed),
            all_of([*allowed, _SOLD_OUT_ITEMS]) if hides_sold_out else None,
            Steering(request.weights, more, less, request.strictness),
            named.payloads,
            named.left_out,
            1000 * (time.perf_counter() - begun),
        )

    def _reference(
        self, one: WeightedReference, item: str | None, payload: Mapping[str, Any] | None
    ) -> Reference:
        """Return a reference with its weight: the given picture, or else the picture of the given item."""
        if one.image is not None:
            return self.composer.reference(one.image, one.weight)
        with reading_picture_of(item):
            return self.composer.reference(self._picture(item, payload), one.weight)

    def picture_of(self, item: str | None) -> StoredPicture:
        """Return the picture of an item; for the id of a product, that of its first view.

        Raises :class:`UnknownItemError` if the index has no such id, :class:`ItemPictureError` if the picture
        is missing, and :class:`DataError` if ``item`` is None.
        """
        payload = None if item is None else self.index.payload(item_named(self.index, item))
        return self._picture(item, payload)

    def _picture(self, item: str | None, payload: Mapping[str, Any] | None) -> StoredPicture:
        if item is None:
            raise DataError("a search needs a reference: an image, or an item of the index")
        if payload is None:
            raise UnknownItemError(item)
        picture = self._stored_picture(payload)
        if picture is None:
            raise ItemPictureError(
                f"the picture of the item {item!r} is missing: search from another item, or from an image"
            )
        return picture

    @torch.no_grad()
    def answer(self, prepared: Sequence[PreparedRequest]) -> list[SearchResponse]:
        """Return a response for each prepared request, in order.

        Requests with the same filter are searched together.
        """
        clock = _Clock()
        steered = self._steered(prepared)
        read = readings(steered.query, self.values)
        clock.lap("compose")
        generation = self.index.generation
        hits = self._hits(steered.query, prepared)
        clock.lap("search")
        contributions = self._contributions(steered.query, prepared, hits)
        clock.lap("explain")
        timings = clock.milliseconds
        hidden = {where: self.index.count(where) for where in {one.hidden for one in prepared} if where}
        responses = [
            SearchResponse(
                tuple(
                    _result(found, parts) for found, parts in zip(hits[row], contributions[row], strict=True)
                ),
                self._reading(steered.query, row, read[row], one),
                steered.weights[row],
                steered.own_weights[row],
                tuple(map(str, conjuncts(one.said.where))),
                0 if one.hidden is None else hidden[one.hidden],
                generation,
                {"read": one.reading_ms, **timings},
            )
            for row, one in enumerate(prepared)
        ]
        return [self._reranked(one.request, found) for one, found in zip(prepared, responses, strict=True)]

    def _reranked(self, request: SearchRequest, response: SearchResponse) -> SearchResponse:
        """Return the response with its results in the order of the reranker, if the request wants that."""
        if not request.rerank or self.reranker is None:
            return response
        clock = _Clock()
        if request.image is None and (references := request.all_references):
            first = references[0]
            request = replace(request, image=first.image or self.picture_of(first.item))
        results = reranked(self.reranker, request, response, self._stored_picture)
        clock.lap("rerank")
        return replace(response, results=results, timings={**response.timings, **clock.milliseconds})

    def _reading(self, query: Query, row: int, read: TextReading, prepared: PreparedRequest) -> TextReading:
        """Combine what the model's method and the reader of the index's columns read in a request's text.

        ``row`` is the request's place in ``query``; ``read`` is the reading by the method.
        """
        said, parts = prepared.said, query.parts
        # reads_all: every word has an effect. tells: the method reports all requests.
        reads_all = parts is not None and parts.reads_all
        tells = parts is not None and parts.asked is not None and not reads_all
        parser = self.model.method.parser
        clauses = () if parser is None else parser.clauses(said.text)
        words = {reading.column: clause.words for clause in clauses for reading in clause.readings}
        words |= {ask.column: ask.words for ask in said.read.asks}
        found = {ask.column for ask in said.read.asks}
        # A clause may be read in part; words about a column that the index lacks are not unread words.
        beyond = {c.words for c in clauses if not {reading.column for reading in c.readings} <= found}
        partly = (clause.words for clause in clauses if clause.readings and clause.words not in beyond)
        unread = {word.text for words_read in (*read.unread, *partly) for word in words_of(words_read)}
        foreign = said.read.language != "English"
        asked = [replace(one, words=words.get(one.attribute, "")) for one in read.requested]
        asked += [RequestedValue(ask.column, _named(ask), ask.words) for ask in said.table]
        return TextReading(
            tuple(asked),
            said.constraints,
            () if reads_all else tuple(word for word in said.read.unread if word in unread or foreign),
            said.searched,
            said.searched_in,
            said.no_text,
            said.read.corrections,
            said.lacking,
            said.read.language,
            tells and not (asked or said.constraints or said.searched),
            None if prepared.references else _deciding(asked, said, query, row),
            self._nowhere(asked, prepared.columns),
            said.together,
            said.taken_back,
        )

    def _nowhere(
        self, asked: Sequence[RequestedValue], columns: Collection[Columns]
    ) -> tuple[RequestedValue, ...]:
        """Return the requested values that no item of the index has, among columns that the index has."""

        return tuple(
            one
            for one in asked
            if one.value is not None
            and not one.value.startswith("not ")
            and _is_in(one.attribute, columns)
            and not self.index.has_any(Equal(one.attribute, (one.value, *one.value.split(" or "))))
        )

    def search(self, request: SearchRequest) -> SearchResponse:
        """Prepare and answer one request."""
        [response] = self.answer([self.prepare(request)])
        return response

    @torch.no_grad()
    def query_vectors(self, prepared: Sequence[PreparedRequest]) -> list[QueryVectors]:
        """Return the final query of each request, by which :meth:`answer` searches, without searching."""
        query = self._steered(prepared).query
        wished = preferences(query, prepared, self.values)
        return [QueryVectors(own, bool(one)) for own, one in zip(query.embeddings.cpu(), wished, strict=True)]

    def _steered(self, prepared: Sequence[PreparedRequest]) -> SteeredQuery:
        """Compose, boost and steer a query for each prepared request."""
        composed = self.composer.compose(
            [one.references for one in prepared], [one.said.text for one in prepared]
        )
        steerings = [one.steering for one in prepared]
        # If the index has cells of garments, preferences for cells keep the garment.
        garments = () if any(one.said.garments for one in prepared) else self.garments
        rule = self.model.method.score_rule
        return boosted_and_steered(composed, steerings, self.attributes, rule, garments)

    def explain(
        self, asked: Sequence[tuple[PreparedRequest, Image.Image, Image.Image]]
    ) -> list[tuple[HeatMap, HeatMap]]:
        """Return two heat maps for each entry of ``asked``: of its reference, and of its result.

        An entry is a prepared request, the reference picture and the result's picture, both RGB.
        """
        return [
            heat_maps(self.model, reference, prepared.said.text, target, prepared.steering)
            for prepared, reference, target in asked
        ]

    def _hits(self, query: Query, prepared: Sequence[PreparedRequest]) -> list[list[ProductHit]]:
        together: dict[Filter | None, list[int]] = {}
        for row, one in enumerate(prepared):
            together.setdefault(one.allowed, []).append(row)
        found: list[list[ProductHit]] = [[] for _ in prepared]
        embeddings = query.embeddings.cpu()
        preferred = self._preferred(query, prepared)
        counts = [max(one.request.k, one.request.rerank) for one in prepared]
        for where, rows in together.items():
            most = max(counts[row] for row in rows)
            exclude = [prepared[row].exclude for row in rows]
            prefer = [preferred[row] for row in rows]
            hits = best_products(self.index, embeddings[rows], most, exclude, where, prefer)
            for row, best in zip(rows, hits, strict=True):
                found[row] = best[: counts[row]]
        return found

    def _preferred(self, query: Query, prepared: Sequence[PreparedRequest]) -> list[Preference]:
        """Return what is added to the scores of each search (:func:`preferences`), in units of the score.

        A preference is scaled by the standard deviation of its query's scores over a sample of items.
        """
        wished = preferences(query, prepared, self.values)
        if not any(wished):
            return wished
        queries = query.embeddings.cpu()
        spreads = score(queries, self._sampled(), self.model.method.score_rule).std(dim=1).tolist()
        return [
            one.scaled(spread if spread > 0 else 1.0) for one, spread in zip(wished, spreads, strict=True)
        ]

    def _contributions(
        self, query: Query, prepared: Sequence[PreparedRequest], hits: Sequence[Sequence[ProductHit]]
    ) -> list[list[tuple[Contribution, ...]]]:
        nothing: list[list[tuple[Contribution, ...]]] = [[() for _ in found] for found in hits]
        explained = [found if one.request.explain else [] for found, one in zip(hits, prepared, strict=True)]
        ids = [hit.best.id for found in explained for hit in found]
        if query.parts is None or not ids:
            return nothing
        try:
            tokens = self.index.tokens(ids).split([len(found) for found in explained])
            sample = self._sampled()
        except UnknownItemError:
            # An item was deleted after it was found; keep its result without an explanation.
            return nothing
        rule = self.model.method.score_rule
        found = attribute_scores(query, tokens, sample, self.attributes, rule)
        return [parts or none for parts, none in zip(found, nothing, strict=True)]

    def _sampled(self) -> Tensor:
        """Return target embeddings [S, n_t, D] of up to :data:`SAMPLE` random items.

        The sample is drawn again when the index has halved or doubled its size.
        """
        if self._sample is None or not 0.5 < len(self.index) / max(1, self._sample[0]) < 2:
            self._sample = len(self.index), self.index.tokens(self.index.sample(SAMPLE, seed=0))
        return self._sample[1]


def _is_in(name: str, columns: Collection[Columns]) -> bool:
    return any(name in part for part in columns)


def _deciding(asked: Sequence[RequestedValue], said: RequestText, query: Query, row: int) -> tuple[str, ...]:
    """Return names of what decides a search by text alone, such as "requested values" or "numbers"."""
    tells = query.parts is not None and query.parts.asked is not None
    decides = {
        "requested values": asked,
        "numbers": said.constraints,
        f"words of {' and '.join(said.searched_in)}": said.searched,
        "the embedding of the text": not tells and bool(query.embeddings[row].any()),
    }
    return tuple(name for name, has in decides.items() if has)


def _result(found: ProductHit, parts: tuple[Contribution, ...]) -> SearchResult:
    best = found.best
    if found.product is None:
        return SearchResult(best.id, best.score, best.payload, parts)
    return ProductResult(
        best.id, best.score, best.payload, parts, product=found.product, other_views=found.other_views
    )


@contextmanager
def reading_picture_of(item: str | None) -> Iterator[None]:
    """Raise :class:`ItemPictureError` instead of ``ImageError`` inside the ``with`` block.

    An item's unreadable picture is a fault of the index, not of the request.
    """
    try:
        yield
    except ImageError as error:
        said = f"the picture of the item {item!r} cannot be read: {error.reason}"
        raise ItemPictureError(said) from None


def _named(ask: Ask) -> str:
    return f"not {ask.value}" if ask.operation in ("is not", "less") else str(ask.value)


class _Clock:
    """Measure how many milliseconds each step takes."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.milliseconds[step] = 1000 * (now - self._last)
        self._last = now
