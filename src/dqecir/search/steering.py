"""Steer queries by a user's settings: weights of attributes, "more like this", "not this".

All functions here compute new queries from composed queries and from embeddings that the index stores. A
steered query has the same score rule, so that every engine can search it, and nothing is encoded again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dqecir.errors import DataError
from dqecir.language.linking import Linker
from dqecir.methods.method import Method, Query, QueryParts
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.value_vectors import SlicedValues, ValueTokens
from dqecir.settings import nearest

HEAVIEST = 3.0
"""The largest weight of an attribute that a user may set; the smallest is 0."""

MORE = 0.5
"""Length of the step towards liked items, relative to a query vector's length; in a query of distributions,
the share of the liked items' distributions in the new ones."""

LESS = 0.5
"""Length of the step away from disliked items, relative to a query vector's length."""

THINNED = 0.8
"""Largest share of a value's probability that a disliked item takes away."""

REQUEST_BOOST = 2.0
"""Factor for the weights of the attributes that a text requests."""

GARMENT_BOOST = 8.0
"""Factor for the weight of the garment (which the text names or the reference shows), in an index whose items
have no garment attribute. In such an index, the weights of requested attributes are multiplied by this,
too."""

REQUEST_FIRMNESS, GARMENT_FIRMNESS, CHANGED_FIRMNESS = 4.0, 32.0, 8.0
"""Firmness (:attr:`SlicedValues.firmness`) is what an item's score gains if it surely shows a wanted value.
The three numbers are those of requested attributes, of the garment, and of the garment if a text changes
another part of its shape; they are used in an index whose items have no garment attribute. Without firmness,
the logarithm of a probability hardly differs between a probable and a certain garment. Chosen on photos that
training did not see (docs/language.md, "Garments and requested values")."""

STRICTEST = 3.0
"""The largest strictness of a request (:attr:`Steering.strictness`)."""

_NOTHING = 1e-6
_NO_WEIGHTS = "this model has no attribute weights: leave them out"


@dataclass(frozen=True)
class Steering:
    """A user's settings for one query.

    ``weights``: attribute -> 0 to :data:`HEAVIEST`, instead of the weight that the text gives it; other
    attributes keep theirs. ``more`` and ``less``: target embeddings [L, n_t, D] of L liked and disliked
    items. Several items move a query no further than one.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    more: Tensor | None = None
    less: Tensor | None = None
    strictness: float = 1.0
    """How strongly requested values and the garment decide; 0: only the model's query decides. Default: 1."""


def check_weights(weights: Mapping[str, float], attributes: Collection[str]) -> None:
    """Raise :class:`DataError` for an attribute not in ``attributes``, or a weight outside 0 to HEAVIEST.

    If ``attributes`` is empty, the model has no weights, and any weight raises.
    """
    if weights and not attributes:
        raise DataError(_NO_WEIGHTS)
    for name, weight in weights.items():
        if name not in attributes:
            raise DataError(f"the model has no attribute {name!r} to weigh{nearest(name, attributes)}")
        if not (math.isfinite(weight) and 0 <= weight <= HEAVIEST):
            raise DataError(f"the weight of {name} must be between 0 and {HEAVIEST:g}, not {weight}")


def boost_requested(
    query: Query,
    factor: float = REQUEST_BOOST,
    garments: Collection[str] = (),
    strictness: Sequence[float] | None = None,
) -> Query:
    """Multiply the weights of the columns that the text requests by ``factor``; return new queries.

    ``garments`` are the columns that hold the kind of garment. If there are any, their weights and those of
    requested columns are also multiplied by :data:`GARMENT_BOOST`, so that the kept garment does not outweigh
    requested sleeves; queries of one vector get firmness too (:data:`REQUEST_FIRMNESS`). ``strictness``, one
    number for each query, scales the changes: 0 changes nothing. Default: 1 for each. Queries of a method
    that does not report requested columns are returned unchanged.

    Why: a benchmark's gallery holds the right results, but a shop may have no item that fulfils the request
    and is otherwise like the reference. Then results should still fulfil the request. Measurements:
    docs/flagship.md, "Requested values first".
    """
    parts = query.parts
    if parts is None or parts.asked is None:
        return query
    asked, strict = parts.asked, parts.weights.new_tensor(strictness or [1.0])[:, None]
    held = parts.weights.new_tensor([float(column in garments) for column in parts.columns] or [0.0])
    firm = torch.maximum(held, asked) if bool(held.any()) else held
    times = (1 + (factor - 1) * asked) * (1 + (GARMENT_BOOST - 1) * firm)
    parts = replace(parts, weights=parts.weights * (1 + strict * (times - 1)).clamp(min=0))
    if bool(held.any()) and parts.slices is not None:
        firmness = strict * _firmness(parts, asked, held)
        pieces = parts.pieces + parts.slices.firm(parts.wanted, firmness)
        parts = replace(parts, slices=replace(parts.slices, firmness=firmness), pieces=pieces)
    return replace(query, embeddings=parts.embeddings(), parts=parts)


def _firmness(parts: QueryParts, asked: Tensor, held: Tensor) -> Tensor:
    """Return the firmness [B, C] of C columns: requested ones, and those of garments.

    Firmness is what an item's score gains if it surely shows a wanted value of a column.
    ``asked`` [B, C]: probability that the text requests a column. ``held`` [C]: 1 for columns of garments,
    else 0. The garment gets less firmness if the text requests another column of its attribute, such as the
    sleeves, because a t-shirt with long sleeves is another garment.
    """
    owners = held.new_tensor(parts.owners)
    akin = (owners[:, None] == owners) * (1 - held)  # [C, C]
    changed = (asked[:, None] * akin).amax(dim=2) * (1 - asked)  # [B, C]
    garment = GARMENT_FIRMNESS + (CHANGED_FIRMNESS - GARMENT_FIRMNESS) * changed
    return torch.where(held > 0, garment, REQUEST_FIRMNESS * asked)


def garments_of(method: Method) -> tuple[str, ...]:
    """Return the columns that hold the kind of garment, among those that a method sees in pictures."""
    return tuple(Linker(method.target_values).columns.get("garment", ()))


@dataclass(frozen=True)
class SteeredQuery:
    """Steered queries, and attribute -> weight for each, before (``own_weights``) and after steering."""

    query: Query
    weights: list[dict[str, float]]
    own_weights: list[dict[str, float]]


def boosted_and_steered(
    query: Query,
    steerings: Sequence[Steering],
    attributes: Sequence[str],
    rule: ScoreRule,
    garments: Collection[str] = (),
) -> SteeredQuery:
    """Boost requested columns and ``garments`` (:func:`boost_requested`), then steer (:func:`steered`).

    ``steerings`` has one entry for each query. ``attributes`` and ``rule`` as in :func:`steered`. Raises as
    :func:`steered`.
    """
    query = boost_requested(query, garments=garments, strictness=[one.strictness for one in steerings])
    own = attribute_weights(query, attributes)
    query = steered(query, steerings, attributes, rule)
    return SteeredQuery(query, attribute_weights(query, attributes), own)


def attribute_weights(query: Query, attributes: Sequence[str]) -> list[dict[str, float]]:
    """Return attribute -> weight for each query, on the scale of :attr:`Steering.weights`.

    ``attributes`` are the names of all attributes of the model, in its order. An attribute with several
    columns has their mean weight. All maps are empty if the method has no weights.
    """
    if query.parts is None or not query.parts.owners:
        return [{} for _ in query.embeddings]
    places = sorted(set(query.parts.owners))
    names = [attributes[place] for place in places]
    means = [query.parts.weights[:, _own(query.parts, place)].mean(dim=1) for place in places]
    return [dict(zip(names, row, strict=True)) for row in torch.stack(means, dim=1).tolist()]


def steered(query: Query, steerings: Sequence[Steering], attributes: Sequence[str], rule: ScoreRule) -> Query:
    """Change each query by its user's settings, and return new queries.

    ``attributes`` are the names of all attributes of the model, in its order; ``rule`` is its score rule.
    Raises :class:`DataError` if the numbers of queries and steerings differ, if embeddings of liked or
    disliked items have another width than the query, and as :func:`check_weights`.
    """
    if len(steerings) != len(query.embeddings):
        raise DataError(
            f"{len(query.embeddings)} queries came with {len(steerings)} steerings: give one for each query"
        )
    if any(steering.weights for steering in steerings):
        query = _reweighted(query, [steering.weights for steering in steerings], attributes)
    if all(steering.more is None and steering.less is None for steering in steerings):
        return query
    if query.parts is not None and query.parts.slices is not None:
        return _with_moved_values(query, query.parts, query.parts.slices, steerings)
    moved = [
        _moved(embedding, steering, rule)
        for embedding, steering in zip(query.embeddings, steerings, strict=True)
    ]
    return replace(query, embeddings=torch.stack(moved))


def _reweighted(query: Query, chosen: Sequence[Mapping[str, float]], attributes: Sequence[str]) -> Query:
    parts = query.parts
    if parts is None or not parts.owners:
        raise DataError(_NO_WEIGHTS)
    known = {attributes[place]: _own(parts, place) for place in set(parts.owners)}
    weights = parts.weights.clone()
    for row, wanted in enumerate(chosen):
        check_weights(wanted, known)
        for name, weight in wanted.items():
            own = weights[row, known[name]]
            # Columns of one attribute keep their proportions.
            even = own.mean() <= _NOTHING
            weights[row, known[name]] = torch.full_like(own, weight) if even else weight * own / own.mean()
    parts = replace(parts, weights=weights)
    changed = torch.tensor([bool(wanted) for wanted in chosen], device=weights.device)
    embeddings = torch.where(changed[:, None, None], parts.embeddings(), query.embeddings)
    return replace(query, embeddings=embeddings, parts=parts)


def _own(parts: QueryParts, place: int) -> list[int]:
    return [piece for piece, owner in enumerate(parts.owners) if owner == place]


def _moved(query: Tensor, steering: Steering, rule: ScoreRule) -> Tensor:
    """Move one query [n_q, D] towards liked and away from disliked items; unchanged if there are none."""
    liked, disliked = _judged(query, steering.more), _judged(query, steering.less)
    if liked is None and disliked is None:
        return query
    return MOVES[rule](query, liked, disliked)


def _judged(query: Tensor, tokens: Tensor | None) -> Tensor | None:
    if tokens is None or len(tokens) == 0:
        return None
    if tokens.ndim != 3 or tokens.shape[2] != query.shape[1]:
        raise DataError(
            f"tokens of shape {list(tokens.shape)} cannot steer a query of width {query.shape[1]}: "
            "both must come from the same model"
        )
    return tokens.to(query.device, query.dtype)


def _answering(query: Tensor, tokens: Tensor) -> Tensor:
    """Return for each of L items [L, n_t, D] the token [L, D] that matches a query [n_q, D] best.

    That token decides the item's score, so that moving the query towards it raises this item's score most.
    """
    products = torch.einsum("qd,lkd->lkq", query, tokens).amax(dim=2)  # [L, n_t]
    return tokens[torch.arange(len(tokens), device=tokens.device), products.argmax(dim=1)]


def _mean(query: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean token [L, D] of each of L items [L, n_t, D], which stands for all that the item shows.

    ``query`` is not used; the signature is that of :func:`_answering`.
    """
    return tokens.mean(dim=1)


def _vectors(
    query: Tensor,
    liked: Tensor | None,
    disliked: Tensor | None,
    towards: Callable[[Tensor, Tensor], Tensor] = _answering,
) -> Tensor:
    """Move each vector of a query [n_q, D] as Rocchio does: towards liked items, away from disliked ones.

    ``towards`` chooses one vector [L, D] for each liked item.
    """
    length = query.norm(dim=1, keepdim=True)
    moved = query
    if liked is not None:
        moved = moved + MORE * length * _direction(towards(query, liked))
    if disliked is not None:
        moved = moved - LESS * length * _direction(_mean(query, disliked))
    return moved


def _direction(vectors: Tensor) -> Tensor:
    """Return the unit vector [D] of the mean direction of vectors [L, D]."""
    return F.normalize(F.normalize(vectors, dim=1).mean(dim=0), dim=0)


def _distributions(query: Tensor, liked: Tensor | None, disliked: Tensor | None) -> Tensor:
    """Move a query of a vector and C distributions [1 + C, D] towards liked and away from disliked items.

    The vector moves as in :func:`_vectors`. Distributions are mixed with those of liked items, and values
    that disliked items have become less probable; a column with only one probable value stays the same then.
    The sum of each column, which is its weight, stays. ``liked`` and ``disliked``: [L, n_t, D], or None.
    """
    count = len(query) - 1
    masses = query[1:].sum(dim=1, keepdim=True)  # [C, 1]
    shares = query[1:] / masses.clamp(min=_NOTHING)
    if liked is not None:
        shares = (1 - MORE) * shares + MORE * liked[:, -count:].mean(dim=0)
    if disliked is not None:
        shares = shares * (1 - THINNED * disliked[:, -count:].amax(dim=0))
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=_NOTHING)
    first = _vectors(
        query[:1],
        None if liked is None else liked[:, :-count],
        None if disliked is None else disliked[:, :-count],
    )
    return torch.cat([first, masses * shares])


def _reference_alone(
    query: Tensor, liked: Tensor | None, disliked: Tensor | None, constants: int = 0
) -> Tensor:
    """Move the first of two query vectors [2, D], that of the reference; that of the text stays.

    The last ``constants`` of the D numbers are the same in all targets, and stay too. ``liked`` and
    ``disliked``: embeddings [L, n_t, D] of items, or None.
    """
    width = query.shape[1] - constants
    first = _vectors(
        query[:1, :width],
        None if liked is None else liked[:, :, :width],
        None if disliked is None else disliked[:, :, :width],
    )
    return torch.cat([torch.cat([first, query[:1, width:]], dim=1), query[1:]])


def _with_moved_values(
    query: Query, parts: QueryParts, slices: SlicedValues, steerings: Sequence[Steering]
) -> Query:
    """Steer queries of one vector, some numbers of which (a slice) stand for each column.

    Slices are turned into distributions, moved by :func:`_distributions`, and turned into slices again.
    """
    layout = slices.layout
    sizes = tuple(values.shape[1] for values in parts.wanted)
    spread = ValueTokens(sizes, 1, max(layout.width, *sizes))

    def as_tokens(base: Tensor, columns: Sequence[Tensor]) -> Tensor:
        return spread.targets(F.pad(base, (0, spread.width - layout.width))[:, None], columns)

    before = as_tokens(parts.base[:, 0, : layout.width], parts.wanted)  # [B, 1 + C, W]
    after = before.clone()
    for row, steering in enumerate(steerings):
        liked, disliked = (
            None if tokens is None else as_tokens(*layout.parted(tokens))
            for tokens in (_judged(query.embeddings[row], own) for own in (steering.more, steering.less))
        )
        if liked is not None or disliked is not None:
            after[row] = _distributions(before[row], liked, disliked)
    moved = [after[:, 1 + place, :size] for place, size in enumerate(sizes)]
    parts = replace(parts, base=layout.base(after[:, 0, : layout.width]), pieces=slices.pieces(moved))
    return replace(query, embeddings=parts.embeddings(), parts=parts)


MOVES: dict[ScoreRule, Callable[[Tensor, Tensor | None, Tensor | None], Tensor]] = {
    "dot": _vectors,
    "max_t": _vectors,
    "mean_mean": partial(_vectors, towards=_mean),
    "max_max": _vectors,
    "likelihood": _distributions,
    "product": _reference_alone,
    "harris": partial(_reference_alone, constants=1),
}
"""Score rule -> function that moves a query [n_q, D], given embeddings [L, n_t, D] of liked and disliked
items."""
