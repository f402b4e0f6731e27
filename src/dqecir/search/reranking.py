"""Rerank the first candidates of a search with a scorer that is too slow for the whole index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from PIL import Image

from dqecir.data.images import StoredPicture, load_image
from dqecir.errors import DataError, ImageError
from dqecir.methods.score_rules import SMOOTHING
from dqecir.model.composed_model import ComposedModel
from dqecir.search.response import RequestedValue, SearchResponse, SearchResult
from dqecir.search.search_request import SearchRequest

LONGEST_SIDE = 1024
"""Longest side, in pixels, of the pictures that a reranker gets; larger ones are made smaller."""


class Reranker(Protocol):
    """A function that returns a score for each candidate's picture; higher is better."""

    def __call__(
        self, request: SearchRequest, response: SearchResponse, pictures: Sequence[Image.Image]
    ) -> Sequence[float]:
        """Return one score for each of ``pictures`` (RGB), which show candidates of ``response`` in order.

        ``request.image`` is the first reference; it is None for a search by text alone.
        """
        ...


def reranked(
    reranker: Reranker,
    request: SearchRequest,
    response: SearchResponse,
    picture_of: Callable[[Mapping[str, Any]], StoredPicture | None],
) -> tuple[SearchResult, ...]:
    """Return the ``k`` results of a request, after ``reranker`` has reordered the first ``request.rerank``.

    ``picture_of`` returns the picture of a payload, or None. Candidates with equal scores keep the order of
    the search, and candidates without a readable picture come last. Results keep the scores of the search.
    ``response`` has the candidates. Raises :class:`DataError` if the reranker does not return one score for
    each picture.
    """
    results = response.results
    count = min(request.rerank, len(results))
    pictures = {
        place: picture
        for place in range(count)
        if (picture := _picture(picture_of(results[place].payload))) is not None
    }
    scores = list(reranker(request, response, list(pictures.values())))
    if len(scores) != len(pictures):
        raise DataError(
            f"the reranker returned {len(scores)} scores for {len(pictures)} pictures: return one for each"
        )
    known = dict(zip(pictures, scores, strict=True))
    order = sorted(range(count), key=lambda place: -known.get(place, -torch.inf))
    return (*(results[place] for place in order), *results[count:])[: request.k]


def _picture(stored: StoredPicture | None) -> Image.Image | None:
    if stored is None:
        return None
    try:
        picture = load_image(stored)
    except ImageError:
        return None
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    return picture


class AttributeChecker:
    """A reranker: score a picture by the probabilities that attribute heads give to the requested values.

    The score is Σ log P(requested value) over the requested columns that the model has heads for. Every
    candidate's picture is encoded, so that fifty candidates take as long as fifty reference pictures.
    """

    def __init__(self, model: ComposedModel) -> None:
        if model.heads is None:
            raise DataError(
                "the model has no attribute heads to check requested values with: choose another reranker"
            )
        self.model, self.heads = model.eval(), model.heads

    @torch.no_grad()
    def __call__(
        self, request: SearchRequest, response: SearchResponse, pictures: Sequence[Image.Image]
    ) -> list[float]:
        if not pictures:
            return []
        pixels = torch.stack([self.model.preprocessing(picture) for picture in pictures])
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
    """Return a mask over ``values``: 1 for each that is requested ("red", "red or blue", "not red"), else 0.

    Returns None if no requested value is among ``values``. ``asked`` is what a text requests.
    """
    if asked.value is None:
        return None
    denied = asked.value.startswith("not ")
    named = asked.value.removeprefix("not ").split(" or ")
    found = torch.tensor([float((value in named) != denied) for value in values])
    return found if any(value in named for value in values) else None
