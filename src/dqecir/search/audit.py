"""Recall audit: measure how many of the best results an approximate search finds, and how long it takes.

An engine that does not score every item first chooses candidates, and scores only those. How often the best
results are among the candidates depends on the embeddings, so the audit searches the user's own index, with
queries made from its items.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import Tensor

from dqecir.data.cells import UNKNOWN
from dqecir.data.images import load_image
from dqecir.data.payload_fields import RESERVED
from dqecir.errors import DataError, ImageError
from dqecir.index.contract import AUDIT, Index, SearchSettings
from dqecir.index.filters import Equal, Filter
from dqecir.index.payload_columns import Columns
from dqecir.index.projection import NO_FAISS, has_faiss
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import score
from dqecir.model.compose import compose
from dqecir.model.composed_model import ComposedModel
from dqecir.questions.wording import CaptionGenerator, Change
from dqecir.search.product_search import all_views, best_products, product_of
from dqecir.search.steering import boost_requested, garments_of

BEST = 10
"""Number of best results of a query that a setting should find."""

ENOUGH = 0.995
"""A setting is recommended if its recall less its standard error is at least this, with and without a
filter."""

QUICK = 8.0
"""If scoring every item takes at most this many milliseconds, no approximate setting is recommended."""

QUESTIONS = 200
CANDIDATES = (100, 200, 500, 1_000, 2_000, 5_000, 10_000)
SHARES = (0.1, 0.01)
"""The audit's filters keep about these shares of the items."""

_TIMED_EXACTLY = 20
_CLOSE = 1e-5
"""Relative difference up to which two computations of one score count as equal."""
_BASE, _MASS = 0.4, 0.07
"""Length of a query's base vector, and sum of its values in one column, as in the shipped model's queries."""


@dataclass(frozen=True)
class Limit:
    """A filter of the audit: its expression, its name in the report, and the share of items that it keeps.

    ``where`` is None and ``share`` is 1 without a filter.
    """

    where: Filter | None
    said: str
    share: float


@dataclass(frozen=True)
class Measured:
    """A measured setting with one filter: its recall@10, and the milliseconds of a search.

    Recall is the share of the exact first :data:`BEST` results that the search finds.
    """

    settings: SearchSettings | None
    """The settings of approximate search; None for the search that scores every item."""
    limit: Limit
    recall: float
    error: float
    """The standard error of ``recall`` over the queries."""
    median: float
    slowest: float
    """The 99th percentile in milliseconds; ``median`` is the 50th."""


@dataclass(frozen=True)
class Audit:
    """The result of :func:`audit`: a row for each setting and filter, and a recommendation with a reason."""

    items: int
    queries: int
    of_pictures: bool
    """Whether queries were composed from stored pictures and texts; else they were made from target
    embeddings."""
    rows: tuple[Measured, ...]
    recommended: SearchSettings | None
    reason: str

    def table(self) -> str:
        """Return the audit as lines of text: a row for each setting and filter, then the recommendation."""
        made = "composed of their pictures" if self.of_pictures else "made of their tokens"
        lines = [
            f"{self.items} items, {self.queries} questions {made}",
            f"{'candidates':>10}  {'recall@' + str(BEST):>9}  {'p50 ms':>8}  {'p99 ms':>8}  among",
        ]
        for row in self.rows:
            scored = "all" if row.settings is None else str(row.settings.candidates)
            among = row.limit.said
            if row.limit.where is not None:
                among += f" ({100 * row.limit.share:.1f} %)"
            lines.append(f"{scored:>10}  {row.recall:9.4f}  {row.median:8.1f}  {row.slowest:8.1f}  {among}")
        way = "score every item"
        if self.recommended is not None:
            count = self.recommended.candidates
            way = f"score {count} candidates"
            if self.recommended.exact_up_to > count:
                way += f", and every item where at most {self.recommended.exact_up_to} may be found"
        return "\n".join([*lines, f"Recommended: {way}; {self.reason}."])


def audit(
    index: Index,
    model: ComposedModel | None,
    count: int = QUESTIONS,
    seed: int = 0,
    numbers: Sequence[int] = CANDIDATES,
    apply: bool = False,
) -> Audit:
    """Measure the recall and the time of searches, and recommend settings for this index.

    The audit compares the search that scores every item (if the engine has one) with searches that score only
    some candidates; ``numbers`` are the numbers of candidates to try. ``model`` composes ``count`` queries
    from pictures of random items and generated texts; without readable pictures or without a model, queries
    are made from the items' embeddings. If ``apply``, the recommended settings are stored in the index;
    otherwise the index is not changed. ``seed`` draws the items. Raises ``EngineError`` if ``model`` did not
    make this index, and ``DataError`` if the index has at most :data:`BEST` items.
    """
    if model is not None:
        index.check_model(model)
    entries = list(index.entries())
    if len(entries) <= BEST:
        raise DataError(
            f"the index holds {len(entries)} items, and an audit needs more than {BEST}: add items, or leave "
            "so small an index as it is"
        )
    draw = random.Random(seed)
    chosen = draw.sample(range(len(entries)), min(count, len(entries)))
    payloads = [entries[row][1] for row in chosen]
    placed = [{**payload, "path": str(index.picture_path(payload))} for payload in payloads]
    queries = model and picture_queries(model, placed, draw)
    of_pictures = isinstance(queries, Tensor)
    own = index.tokens([entries[row][0] for row in chosen]).float()
    if not isinstance(queries, Tensor):
        others = draw.sample(range(len(entries)), len(chosen))
        foreign = index.tokens([entries[row][0] for row in others]).float()
        queries = token_queries(own, foreign, index.header.score_rule)
    excluded = [all_views(index, [entries[row][0]]) for row in chosen]
    limits = [Limit(None, "everything", 1.0), *_limits([payload for _, payload in entries])]
    products = {item: product_of(item, payload) for item, payload in entries} if index.has_products else {}
    rights = _best_scores(index, queries, excluded, limits, products)
    try:
        rows = _rows(index, numbers, len(entries), queries, excluded, rights)
        recommended, reason = recommendation(rows, len(entries))
        if apply:
            index.configure(recommended)
    finally:
        index.end_trials()
    return Audit(len(entries), len(queries), of_pictures, tuple(rows), recommended, reason)


def picture_queries(
    model: ComposedModel, payloads: Sequence[Mapping[str, Any]], draw: random.Random
) -> Tensor | None:
    """Compose a query [n_q, D] from each item's picture and a generated text; return all, [B, n_q, D].

    ``payloads`` are those of the items, with the absolute ``path`` of each picture. A text changes one or two
    attributes, chosen by ``draw``. Requested attributes are boosted as in an index whose items have no
    garment attribute. Returns None if a picture cannot be read, or if there is no attribute to change.
    """
    values = _values(model, payloads)
    if not values:
        return None
    words = CaptionGenerator(model.vocabularies, values)
    garments = garments_of(model.method)
    queries = []
    for payload in payloads:
        shown = {column: str(payload[column]) for column in values if payload.get(column)}
        columns = draw.sample(sorted(values), min(len(values), draw.choice((1, 2))))
        changes = [
            Change(column, shown.get(column, UNKNOWN), draw.choice(values[column])) for column in columns
        ]
        captions = words.describe(changes, draw, held_out=False, reference=shown).captions
        try:
            pixels = model.preprocessing(load_image(Path(str(payload.get("path", "")))))
        except ImageError:
            return None
        with torch.no_grad():
            tokens = model.backbone.image_tokens(pixels[None].to(model.device))
            text = model.text_encoder([model.method.text(captions)])
            query = boost_requested(compose(model.method, tokens, text), garments=garments)
            queries.append(query.embeddings.cpu())
    return torch.cat(queries)


def token_queries(tokens: Tensor, others: Tensor, rule: ScoreRule) -> Tensor:
    """Make queries [B, n_q, D] from items' target embeddings ``tokens`` [B, n_t, D], without a model.

    Each query is the item's embedding with a part of the embedding of another item (``others``, same shape).
    ``rule`` is the score rule, which decides the shape.
    """
    if rule in ("product", "harris"):
        return torch.cat([tokens, others], dim=1)
    if rule != "likelihood":
        return torch.nn.functional.normalize(tokens[:, :1] + 0.5 * others[:, :1], dim=2)
    shares = ((tokens >= 0).all(dim=2) & ((tokens.sum(dim=2) - 1).abs() < 0.05)).all(dim=0)
    columns = _MASS * tokens[:, shares]
    changed = torch.arange(len(tokens)) % max(1, columns.shape[1])
    rows = torch.arange(len(tokens))
    if columns.shape[1]:
        columns[rows, changed] = _MASS * others[:, shares][rows, changed]
    return torch.cat([_BASE * tokens[:, :1], columns], dim=1)


def _values(model: ComposedModel, payloads: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return column -> values that generated texts may request.

    They are the items' own values, or those of the model's vocabularies if the items have none.
    """
    found: dict[str, set[str]] = {}
    for payload in payloads:
        for name, value in payload.items():
            if name not in RESERVED and isinstance(value, str) and value:
                found.setdefault(name, set()).add(value)
    spoken = [name for name in found if any(known.column(name) for known in model.vocabularies)]
    own = {name: sorted(found[name]) for name in spoken or found if len(found[name]) > 1}
    return own or {
        name: sorted(column.values)
        for vocabulary in model.vocabularies
        for name, column in vocabulary.columns.items()
        if column.values
    }


def _limits(payloads: Sequence[Mapping[str, Any]]) -> list[Limit]:
    """Return at most two filters ``column = value`` that keep about a tenth and a hundredth of the items.

    A filter is left out if no value has a share near enough.
    """
    counts = Counter(
        (name, value)
        for payload in payloads
        for name, value in payload.items()
        if name not in RESERVED and isinstance(value, str)
    )
    limits = []
    for wanted in SHARES:
        fitting = [(abs(n / len(payloads) - wanted), name, value) for (name, value), n in counts.items()]
        for apart, name, value in sorted(fitting)[:1]:
            if apart < wanted / 2:
                share = counts[name, value] / len(payloads)
                limits.append(Limit(Equal(name, (value,)), f"{name} = {value}", share))
    return limits


def _worth_trying(numbers: Sequence[int], items: int, whole: bool) -> list[int]:
    """Return the candidate counts to measure, for an index of ``items`` items.

    ``whole``: whether the engine can score every item. Then only counts up to a quarter of the items are
    returned, because others are not faster; else those up to the first that reaches ``items``.
    """
    if whole:
        return [number for number in numbers if 4 * number <= items]
    return [number for place, number in enumerate(numbers) if not place or numbers[place - 1] < items]


def _best_scores(
    index: Index,
    queries: Tensor,
    excluded: Sequence[Sequence[str]],
    limits: Sequence[Limit],
    products: Mapping[str, str],
) -> dict[Limit, Tensor]:
    """Return, for each filter, each query's best scores over all items: [B, at most BEST], best first.

    Scores are -inf where a filter allows fewer items. ``excluded`` holds each query's ids to skip.
    ``products`` maps each item to its product, which counts with its best item; empty if the index has no
    products. Embeddings are read batch by batch, so that they need not fit into memory.
    """
    numbers = {product: number for number, product in enumerate(dict.fromkeys(products.values()))}
    best = {limit: torch.full((len(queries), len(numbers)), -torch.inf) for limit in limits}
    for batch in index.items():
        scores = score(queries, batch.tokens, index.header.score_rule)
        places = {item: place for place, item in enumerate(batch.ids)}
        for row, ids in enumerate(excluded):
            scores[row, [places[item] for item in ids if item in places]] = -torch.inf
        columns = Columns.of(batch.payloads)
        for limit, held in best.items():
            allowed, items = scores, list(batch.ids)
            if limit.where is not None:
                mask = limit.where.mask(columns)
                allowed = scores[:, torch.from_numpy(mask)]
                items = [item for item, is_allowed in zip(items, mask.tolist(), strict=True) if is_allowed]
            if products:
                shown = torch.tensor([numbers[products[item]] for item in items], dtype=torch.long)
                held.scatter_reduce_(1, shown.expand(len(queries), -1), allowed, "amax")
            else:
                both = torch.cat([held, allowed], dim=1)
                best[limit] = both.topk(min(BEST, both.shape[1]), dim=1).values
    return {limit: held.topk(min(BEST, held.shape[1]), dim=1).values for limit, held in best.items()}


def _rows(
    index: Index,
    numbers: Sequence[int],
    items: int,
    queries: Tensor,
    excluded: Sequence[Sequence[str]],
    rights: Mapping[Limit, Tensor],
) -> list[Measured]:
    """Measure every setting with every filter; ``rights`` are the best scores from :func:`_best_scores`."""

    def under_limits(tried: Index, settings: SearchSettings | None) -> list[Measured]:
        return [
            _measured(tried, settings, queries, excluded, limit, right) for limit, right in rights.items()
        ]

    whole = tried = index.with_settings(None)
    rows = [] if whole is None else under_limits(whole, None)
    for candidates in _worth_trying(numbers, items, whole is not None):
        settings = SearchSettings(candidates=candidates, exact_up_to=0, audit=AUDIT)
        # Continue from the index of the last setting, which already holds projected vectors.
        tried = (tried or index).with_settings(settings)
        if tried is not None:
            rows += under_limits(tried, settings)
    return rows


def _measured(
    index: Index,
    settings: SearchSettings | None,
    queries: Tensor,
    excluded: Sequence[Sequence[str]],
    limit: Limit,
    right: Tensor,
) -> Measured:
    # Scoring every item is slow and always right, so a few queries are enough to measure its time.
    asked = len(queries) if settings else min(_TIMED_EXACTLY, len(queries))
    seconds, shares = [], []
    best_products(index, queries[:1], BEST, excluded[:1], limit.where)
    for row in range(asked):
        started = time.perf_counter()
        [hits] = best_products(index, queries[row : row + 1], BEST, excluded[row : row + 1], limit.where)
        seconds.append(1000 * (time.perf_counter() - started))
        shares.append(_share([hit.best.score for hit in hits], right[row][right[row].isfinite()].tolist()))
    times = torch.tensor(seconds)
    return Measured(
        settings,
        limit,
        mean(shares),
        pstdev(shares) / math.sqrt(asked),
        float(times.median()),
        float(times.quantile(0.99)),
    )


def _share(found: Sequence[float], right: Sequence[float]) -> float:
    """Return the share of the right scores that was found.

    Scores are compared, not ids, because any of several items with the same score is right.
    """
    if not right:
        return 1.0
    least = right[-1] - _CLOSE * (1 + abs(right[-1]))
    return sum(value >= least for value in found) / len(right)


def recommendation(rows: Sequence[Measured], items: int) -> tuple[SearchSettings | None, str]:
    whole = next(
        (row.median for row in rows if row.settings is None and row.limit.where is None), float("inf")
    )
    if whole <= QUICK:
        return None, f"scoring every item takes {whole:.1f} ms, which is quick enough"
    sure = f"{100 * ENOUGH:.1f} % of the exact first {BEST}"
    tried = list(dict.fromkeys(row.settings for row in rows if row.settings is not None))
    for settings in tried:
        median = next(row.median for row in rows if row.settings == settings and row.limit.where is None)
        least = _least(rows, settings)
        if least >= ENOUGH and median < whole:
            level = _scanned(rows, settings, items)
            instead = "" if whole == float("inf") else f" instead of {whole:.1f}"
            return settings.model_copy(update={"exact_up_to": level}), (
                f"they hold {100 * least:.1f} % or more of the exact first {BEST}, "
                f"in {median:.1f} ms{instead}"
            )
    if not tried and not has_faiss():
        return None, NO_FAISS
    if whole < float("inf"):
        return None, f"no number of candidates holds {sure} any sooner"
    # The engine has no search that scores every item, so recommend the largest number.
    least = _least(rows, tried[-1])
    return tried[-1], f"they hold {100 * least:.1f} %, and no number {sure}: the engine exact scores all"


def _scanned(rows: Sequence[Measured], settings: SearchSettings, items: int) -> int:
    """Return up to how many allowed items scoring all of them is not slower than ``settings``; 0 if none.

    It is one of the numbers of items that the audit's filters allow.
    """
    quick = {row.limit: row.median for row in rows if row.settings == settings}
    return max(
        (
            int(row.limit.share * items)
            for row in rows
            if row.settings is None and row.limit.where is not None and row.median <= quick[row.limit]
        ),
        default=0,
    )


def _least(rows: Sequence[Measured], settings: SearchSettings) -> float:
    """Return the lowest recall less its standard error of ``settings``, over all filters."""
    return min(row.recall - row.error for row in rows if row.settings == settings)
