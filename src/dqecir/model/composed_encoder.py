"""A model with the interface of sentence-transformers: ``encode`` and ``similarity``.

An input with a text is a query; a picture alone is a candidate.

>>> encoder = ComposedEncoder(ComposedModel.from_pretrained())
>>> queries = encoder.encode([{"image": "dress.jpg", "text": "in red"}])  # doctest: +SKIP
>>> encoder.similarity(queries, encoder.encode(["a.jpg", "b.jpg"]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dqecir.data.images import ImageSource, load_image
from dqecir.errors import DataError
from dqecir.methods.scoring import score
from dqecir.model.compose import QueryComposer
from dqecir.model.composed_model import ComposedModel

Input = ImageSource | Mapping[str, Any]
"""A picture (a file, its bytes or an opened image), or ``{"image": picture, "text": text}``."""


class ComposedEncoder:
    """Encodes queries and candidates with one model, and scores them by the model's score rule."""

    def __init__(self, model: ComposedModel) -> None:
        self.model = model.eval()
        self._composer = QueryComposer(model)

    @property
    def one_vector(self) -> bool:
        """Whether a score is the inner product of one query vector with one candidate vector."""
        rule = self.model.method.score_rule
        return rule in ("dot", "mean_mean") or (rule == "max_t" and self.model.method.target_shape[0] == 1)

    def encode(self, inputs: Sequence[Input], batch_size: int = 32) -> Tensor:
        """Encode inputs that are all queries or all candidates: [B, D], or [B, n, D] for n vectors each.

        An input with a text, even an empty one, is a query. ``batch_size`` inputs are encoded at a time.
        Raises :class:`DataError` if ``inputs`` is empty or mixes queries and candidates, if a picture is
        missing or cannot be used, or if an input has a text that is not a string or has other keys.
        """
        asked = [isinstance(one, Mapping) and one.get("text") is not None for one in inputs]
        if any(asked) and not all(asked):
            raise DataError(
                "some inputs have a text and others none: encode queries and candidates apart, in two calls"
            )
        return (
            self.encode_query(inputs, batch_size) if any(asked) else self.encode_document(inputs, batch_size)
        )

    def encode_query(self, inputs: Sequence[Input], batch_size: int = 32) -> Tensor:
        """Encode reference images with modification texts; result and errors as in :meth:`encode`.

        An input without a text asks for images like the reference.
        """
        parts = []
        for some in _batches(inputs, batch_size):
            pictures, texts = zip(*map(_parts, some), strict=True)
            references = [[self._composer.reference(picture)] for picture in pictures]
            parts.append(self._composer.compose(references, texts).embeddings.cpu())
        return self._plain(torch.cat(parts))

    def encode_document(self, inputs: Sequence[Input], batch_size: int = 32) -> Tensor:
        """Encode candidates; result as in :meth:`encode`.

        Raises :class:`DataError` as :meth:`encode`, and for an input with a text.
        """
        found = []
        for some in _batches(inputs, batch_size):
            pictures = []
            for one in some:
                picture, text = _parts(one)
                if text:
                    raise DataError(
                        f"a candidate is a picture without a text, but one has the text {text!r}: leave it "
                        "out"
                    )
                pictures.append(self._composer.reference(picture))
            found += self._composer.target_embeddings(pictures)
        return self._plain(torch.stack(found))

    @torch.no_grad()
    def see_gallery(self, inputs: Sequence[Input], batch_size: int = 32) -> None:
        """Let a method that learns from its gallery see the candidates; call this before encoding.

        ``inputs`` are pictures as for :meth:`encode_document`. Other methods ignore them.
        """
        if self.model.method.learns_gallery:
            self.model.method.fit_targets(
                self.model.backbone.image_tokens(
                    torch.stack([self.model.preprocessing(load_image(_parts(one)[0])) for one in some])
                )
                for some in _batches(inputs, batch_size)
            )
            self.model.forget_fingerprints()

    def similarity(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return scores [B, N] of B encoded queries against N encoded candidates, by the score rule."""
        if self.one_vector:
            return queries.float() @ candidates.float().T
        return score(queries, candidates, self.model.method.score_rule)

    def _plain(self, embeddings: Tensor) -> Tensor:
        """Return the mean [B, D] of embeddings [B, n, D] if the score rule compares single vectors."""
        return embeddings.mean(dim=1) if self.one_vector else embeddings


def _parts(one: Input) -> tuple[ImageSource, str]:
    """Return the picture and the text of an input; the text is empty if the input has none.

    Raises :class:`DataError` if the input has no picture, has unknown keys, or a text that is not a string.
    """
    if not isinstance(one, Mapping):
        return one, ""
    unknown = [key for key in one if key not in ("image", "text")]
    if unknown or one.get("image") is None:
        what = f"the unknown key {unknown[0]!r}" if unknown else "no image"
        raise DataError(f'an input has {what}: give {{"image": picture, "text": text}}')
    text = one.get("text") or ""
    if not isinstance(text, str):
        raise DataError(f"the text {text!r} of an input is not a string: give a string, or leave it out")
    return one["image"], text


def _batches(inputs: Sequence[Input], size: int) -> list[Sequence[Input]]:
    if isinstance(inputs, Mapping | str | bytes) or not inputs:
        raise DataError("there is nothing to encode: give a list of at least one input")
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]
