"""Rerank the first candidates of a search by a scorer that is too slow for the whole index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from dqecir.data.images import load_image
from dqecir.errors import DataError
from dqecir.methods.score_rules import SMOOTHING
from dqecir.model.composed_model import ComposedModel
from dqecir.search.engine import SearchEngine
from dqecir.search.response import RequestedValue, SearchResponse
from dqecir.search.search_request import SearchRequest

DEPTH = 50
"""Number of candidates that are scored again."""


class Reranker(Protocol):
    """The interface of a reranker: a number for each picture, higher is better."""

    def __call__(
        self, request: SearchRequest, response: SearchResponse, pictures: Sequence[Path]
    ) -> Sequence[float]:
        """Return scores of ``pictures``, candidates of ``response`` in its order."""
        ...


def search_reranked(
    engine: SearchEngine, request: SearchRequest, reranker: Reranker, depth: int = DEPTH
) -> SearchResponse:
    """Answer a request with its first ``depth`` candidates in the order of ``reranker``.

    Equal scores keep the order of the search; candidates without a picture come last. Results keep the scores
    of the search. Raises :class:`DataError` if the reranker returns a wrong number of scores.
    """
    response = engine.search(replace(request, k=max(depth, request.k)))
    paths = [engine.index.picture_path(result.payload) for result in response.results]
    there = [place for place, path in enumerate(paths) if path is not None]
    scores = list(reranker(request, response, [path for path in paths if path is not None]))
    if len(scores) != len(there):
        raise DataError(f"a reranker gave {len(scores)} scores for {len(there)} pictures: one each is needed")
    known = dict(zip(there, scores, strict=True))
    order = sorted(range(len(paths)), key=lambda place: -known.get(place, -torch.inf))
    return replace(response, results=tuple(response.results[place] for place in order[: request.k]))


class AttributeChecker:
    """Score a picture by the attribute heads' probabilities of requested values.

    The score is Σ log P(requested value) over the requested columns that have heads. Each picture is encoded,
    so fifty candidates take as long as fifty references.
    """

    def __init__(self, model: ComposedModel) -> None:
        if model.heads is None:
            raise DataError("the model has no attribute heads to check requested values with: name another")
        self.model, self.heads = model.eval(), model.heads

    @torch.no_grad()
    def __call__(
        self, request: SearchRequest, response: SearchResponse, pictures: Sequence[Path]
    ) -> list[float]:
        if not pictures:
            return []
        pixels = torch.stack([self.model.preprocessing(load_image(path)) for path in pictures])
        logits = self.heads(self.model.backbone.image_tokens(pixels.to(self.model.device)))
        total = torch.zeros(len(pictures))
        for asked in response.reading.requested:
            values = self.heads.config.columns.get(asked.attribute)
            admissible = None if values is None else admissible_values(asked, values)
            if admissible is not None:
                shares = logits[asked.attribute].float().softmax(dim=1).cpu()
                total += (shares @ admissible + SMOOTHING).log()
        return total.tolist()


def admissible_values(asked: RequestedValue, values: Sequence[str]) -> torch.Tensor | None:
    """Return [values] with 1 for each requested value ("red", "red or blue", "not red").

    None if none is known.
    """
    if asked.value is None:
        return None
    denied = asked.value.startswith("not ")
    named = asked.value.removeprefix("not ").split(" or ")
    found = torch.tensor([float((value in named) != denied) for value in values])
    return found if any(value in named for value in values) else None
