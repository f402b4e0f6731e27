"""Explain a result: which attributes raised its score, what was read in the text, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from dqecir.methods.method import REQUESTED, Query, QueryParts
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import RULES, log_probability, score
from dqecir.model.compose import compose
from dqecir.model.composed_model import ComposedModel
from dqecir.search.response import Contribution, RequestedValue, TextReading
from dqecir.search.steering import Steering, boosted_and_steered

OVERALL = "overall"
"""Name of the part of a query that belongs to no attribute."""

LEAST = 0.03
"""Contributions with a smaller share than this, of a total of 1, are left out."""

COVERED = 8
"""Cells in a row, and in a column, of a picture that is covered cell by cell."""

_ROUNDING = 1e-6
"""Changes of a score up to this count as none."""

_NAMED = 3
"""If a text requests more values of a column than this, they are not listed."""


@torch.no_grad()
def attribute_scores(
    query: Query, found: Sequence[Tensor], sample: Tensor, attributes: Sequence[str], rule: ScoreRule
) -> list[list[tuple[Contribution, ...]]]:
    """Return the contributions of attributes to the score of each result of each query, the largest first.

    ``found`` holds the target embeddings [K, n_t, D] of each query's results, ``sample`` [S, n_t, D] those of
    random items. A part of the query is a column, an attribute (if the method has no columns), or
    :data:`OVERALL`. Its contribution is its part of the result's score less the mean of that part over the
    sample; only positive contributions count, and their shares add up to 1. Shares below :data:`LEAST` are
    left out. A result has no contributions if none is positive, or if the method has no attributes. ``rule``
    is the score rule of ``query``; ``attributes`` are the model's, in order.
    """
    if query.parts is None or not found:
        return [[() for _ in tokens] for tokens in found]
    names = (OVERALL, *(query.parts.columns or [attributes[place] for place in query.parts.owners]))
    usual = contributions(query, sample.to(query.embeddings)[None], rule).mean(dim=1, keepdim=True)
    together = pad_sequence(list(found), batch_first=True).to(query.embeddings)
    ahead = (contributions(query, together, rule) - usual).clamp(min=0)  # [B, K, 1 + P]
    shares = ahead / ahead.sum(dim=2, keepdim=True).clamp(min=torch.finfo(ahead.dtype).tiny)
    shares, order = shares.sort(dim=2, descending=True, stable=True)
    return [
        [
            tuple(
                Contribution(names[place], share)
                for share, place in zip(*of_item, strict=True)
                if share >= LEAST
            )
            for of_item in zip(row_shares[: len(tokens)], row_order[: len(tokens)], strict=True)
        ]
        for tokens, row_shares, row_order in zip(found, shares.tolist(), order.tolist(), strict=True)
    ]


def contributions(query: Query, tokens: Tensor, rule: ScoreRule) -> Tensor:
    """Split the score of each item into the scores of the query's parts: [B, N, 1 + P].

    ``tokens`` are target embeddings [B or 1, N, n_t, D] of N items for B queries. The P last numbers are
    those of ``query.parts.pieces`` (``query.parts`` must not be None), the first is the rest; their sum is
    the score. ``rule`` is the score rule of ``query``.
    """
    return CONTRIBUTIONS[rule](query, tokens, rule)


def _of_vectors(query: Query, tokens: Tensor, rule: ScoreRule) -> Tensor:
    """Split scores as :func:`contributions`, by gradient x piece, for rules piecewise linear in the query."""
    assert query.parts is not None

    def one(vectors: Tensor, target: Tensor) -> Tensor:
        return RULES[rule](vectors[None], target[None])[0, 0]

    answering = torch.func.vmap(torch.func.vmap(torch.func.grad(one), in_dims=(None, 0)))
    embeddings = query.embeddings
    answers = answering(embeddings, tokens.expand(len(embeddings), -1, -1, -1))  # [B, N, n_q, D]
    whole = torch.einsum("bnqd,bqd->bn", answers, embeddings)
    pieces = torch.einsum("bnqd,bpqd->bnp", answers, query.parts.added())
    return torch.cat([(whole - pieces.sum(dim=2))[:, :, None], pieces], dim=2)


def _of_columns(query: Query, tokens: Tensor, rule: ScoreRule) -> Tensor:
    """Split scores of the rule ``likelihood`` as :func:`contributions`: a term for each column."""
    masses = query.embeddings[:, 1:].sum(dim=2)  # [B, C]
    count = masses.shape[1]
    # One product of everything with everything is faster than single products.
    products = query.embeddings @ tokens.flatten(1, 2).transpose(1, 2)  # [B, 1 + C, N * n_t]
    products = products.unflatten(2, tokens.shape[1:3])
    base = products[:, 0, :, :-count].amax(dim=2)
    fits = products[:, 1:, :, -count:].diagonal(dim1=1, dim2=3) / masses.clamp(min=1e-6)[:, None]  # [B, N, C]
    return torch.cat([base[:, :, None], masses[:, None] * log_probability(fits)], dim=2)


CONTRIBUTIONS: dict[ScoreRule, Callable[[Query, Tensor, ScoreRule], Tensor]] = {
    "dot": _of_vectors,
    "max_t": _of_vectors,
    "mean_mean": _of_vectors,
    "max_max": _of_vectors,
    "likelihood": _of_columns,
}


def readings(query: Query, values: Mapping[str, Sequence[str]]) -> list[TextReading]:
    """Return what a method read in each query's text; an empty reading if the method does not report it.

    ``values``: column -> its values, in the order of the model's attribute heads.
    """
    parts = query.parts
    if parts is None:
        return [TextReading()] * len(query.embeddings)
    unread = parts.unread or [()] * len(query.embeddings)
    asked = [[]] * len(query.embeddings) if parts.asked is None else parts.asked.tolist()
    return [
        TextReading(_requested(parts, row, chances, values), unread=unread[row])
        for row, chances in enumerate(asked)
    ]


def _requested(
    parts: QueryParts, row: int, chances: Sequence[float], values: Mapping[str, Sequence[str]]
) -> tuple[RequestedValue, ...]:
    """Return the requested values of the text of query ``row``, the most probable column first.

    ``chances``: for each column the probability that the text requests it.
    """
    places = [place for place, chance in enumerate(chances) if chance >= REQUESTED]
    return tuple(
        RequestedValue(column, _value(parts.wanted[place][row].tolist(), values[column]))
        for place in sorted(places, key=lambda place: -chances[place])
        for column in [parts.columns[place]]
    )


def _value(shares: Sequence[float], names: Sequence[str]) -> str | None:
    """Return the values that a distribution ``shares`` over ``names`` requests, such as "red or blue".

    If all but one are probable, it is "not red"; None if too many are.
    """
    best = max(shares)
    fits = [name for name, share in zip(names, shares, strict=True) if share > best / 2]
    others = [name for name in names if name and name not in fits]
    if len(fits) <= _NAMED:
        return " or ".join(name or "none" for name in fits)
    return f"not {others[0]}" if len(others) == 1 else None


@dataclass(frozen=True)
class HeatMap:
    """A heat map of a picture: ``values[row][column]``, from 0 (no influence) to 1 in the hottest cell.

    The cells cover the whole picture; one cell covers about the area of one image token. All values are 0 if
    no part of the picture has an influence.
    """

    values: tuple[tuple[float, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def columns(self) -> int:
        return len(self.values[0])


def heat_maps(
    model: ComposedModel,
    reference: Image.Image,
    text: str,
    target: Image.Image,
    steering: Steering | None = None,
) -> tuple[HeatMap, HeatMap]:
    """Return two heat maps of a query's score: one of the reference, one of a result; both pictures are RGB.

    A cell's heat is gradient x input: the change of the score if that place had the mean colour of the
    picture. The gradient is taken at the pixels, because an image token depends on more than its own place.
    If the score has no gradient, the picture is covered with its mean colour cell by cell instead. ``target``
    is the picture of the result. Raises :class:`DataError` for a ``steering`` that
    :func:`dqecir.search.steering.steered` rejects.
    """
    method, names = model.method, [vocabulary.name for vocabulary in model.vocabularies]

    def answer(seen: Tensor, shown: Tensor) -> Tensor:
        """Return scores [N, M] of N references [N, 3, S, S] and M results [M, 3, S, S]."""
        words = model.text_encoder([method.text((text,))] * len(seen), blank=True)
        query = compose(method, model.backbone.tower(seen), words)
        steerings = [steering or Steering()] * len(seen)
        query = boosted_and_steered(query, steerings, names, method.score_rule).query
        return score(query.embeddings, method.embed_target(model.backbone.tower(shown)), method.score_rule)

    pictures = [model.preprocessing(image)[None].to(model.device) for image in (reference, target)]
    with torch.enable_grad():
        seen, shown = (pixels.clone().requires_grad_() for pixels in pictures)
        answered = answer(seen, shown)
        gradients: Sequence[Tensor | None] = (None, None)
        if answered.requires_grad:
            gradients = torch.autograd.grad(answered[0, 0], (seen, shown), allow_unused=True)
    seen, shown = pictures
    ways = (lambda pixels: answer(pixels, shown)[:, 0], lambda pixels: answer(seen, pixels)[0])
    side = model.preprocessing.size / math.isqrt(model.backbone.sizes.token_count)
    maps = [
        _as_map(
            _covered(pixels, way) if gradient is None else _followed(pixels, gradient),
            model.preprocessing.seen(image),
            side,
        )
        for pixels, gradient, way, image in zip(pictures, gradients, ways, (reference, target), strict=True)
    ]
    return maps[0], maps[1]


def _followed(pixels: Tensor, gradient: Tensor) -> Tensor:
    """Return heat [1, S, S] of normalised pixels [1, 3, S, S] and the score's gradient of the same shape."""
    return (gradient * (pixels - pixels.mean(dim=(2, 3), keepdim=True))).abs().sum(dim=1)


@torch.no_grad()
def _covered(pixels: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """Return heat [1, S, S] of normalised pixels [1, 3, S, S]: the change of the score if a cell is covered.

    ``answer`` maps N pictures to N scores.
    """
    cells = torch.eye(COVERED**2, device=pixels.device).unflatten(1, (1, COVERED, COVERED))
    covers = F.interpolate(cells, size=pixels.shape[2:])  # [cells, 1, S, S]
    colour = pixels.mean(dim=(2, 3), keepdim=True)
    pictures = pixels * (1 - covers) + colour * covers
    changes = (torch.cat([answer(part) for part in pictures.split(COVERED)]) - answer(pixels)).abs()
    return torch.einsum("c,cohw->ohw", changes.where(changes > _ROUNDING, 0), covers)


def _as_map(heat: Tensor, surface: tuple[float, float], side: float) -> HeatMap:
    """Return ``heat`` [1, S, S] of a model's input as a map of the whole picture.

    ``surface``: height and width in pixels that the whole picture has at the model's scale, including what
    was cropped; ``side``: side of a cell in the same pixels.
    """
    rows, columns = (max(1, round(length / side)) for length in surface)
    # Remove padding; parts that cropping removed have no heat.
    down, across = (round((length - heat.shape[1]) / 2) for length in surface)
    cells = F.adaptive_avg_pool2d(F.pad(heat, (across, across, down, down)), (rows, columns))[0]
    cells = cells / cells.max().clamp(min=torch.finfo(cells.dtype).tiny)
    return HeatMap(tuple(tuple(row) for row in cells.tolist()))
