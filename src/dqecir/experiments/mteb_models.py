"""Models for MTEB (the extra ``mteb``): ``mteb.evaluate(mteb_model(…), tasks)`` for tasks of the kind it2i.

A model whose score is the inner product of two vectors has MTEB's encoder protocol; others rank by their own
score rule, with its search protocol. The instruction of a query is appended to its text, as in MTEB. The
prompt of a whole task is ignored, because the models read captions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import PromptType
from torch import Tensor

from dqecir.errors import DataError
from dqecir.model.composed_encoder import ComposedEncoder, Input
from dqecir.model.composed_model import ComposedModel
from dqecir.model.public_weights import read_model
from dqecir.search.opening import untrained

BATCH = 32
SEEN = 1024
"""Largest number of documents that a method sees if it learns from its gallery."""


def mteb_model(
    model: ComposedModel | Path | str | None = None,
    *,
    encoder: str | None = None,
    method: str | None = None,
    name: str | None = None,
) -> MtebEncoder | MtebSearch:
    """Return a model for ``mteb.evaluate``.

    ``model`` is a model or its folder. Default: the shipped one. Or ``encoder`` names a published encoder,
    which composes with ``method`` (default: ``image_plus_text``). ``name`` (OWNER/NAME) is shown in MTEB's
    results. Raises :class:`DataError` if both a model and an encoder are given, or if they cannot be read.
    """
    if encoder is not None and model is not None:
        raise DataError("give a model or an encoder, not both: a model contains its encoder")
    if encoder is not None:
        found, _ = untrained(encoder, method, {})
    else:
        found = model if isinstance(model, ComposedModel) else read_model(model)
    wrapped = ComposedEncoder(found)
    return (MtebEncoder if wrapped.one_vector else MtebSearch)(wrapped, name)


class _MtebModel:
    """The base of both kinds of models: a model with MTEB's metadata."""

    def __init__(self, encoder: ComposedEncoder, name: str | None = None) -> None:
        self.encoder = encoder
        model = encoder.model
        self._meta = ModelMeta.create_empty(
            {
                "name": name or f"dqecir/{model.method.name}",
                "revision": model.fingerprint,
                "modalities": ["image", "text"],
                "n_parameters": sum(each.numel() for each in model.method.parameters()),
                "embed_dim": model.method.target_shape[1],
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.DOT_PRODUCT if encoder.one_vector else None,
                "use_instructions": False,
            }
        )

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """MTEB's metadata of the model."""
        return self._meta


class MtebEncoder(_MtebModel):
    """A model with one vector for each input, with MTEB's encoder protocol."""

    def encode(
        self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: PromptType | None = None, **_: Any
    ) -> Tensor:
        """Encode batches of ``image`` and ``text`` to vectors [N, D].

        They are documents if ``prompt_type`` says so, else queries.
        """
        encoded = (
            self.encoder.encode_document if prompt_type == PromptType.document else self.encoder.encode_query
        )
        return torch.cat([encoded(_inputs(batch)) for batch in inputs])

    def similarity(self, embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
        """Return the inner products [N, M] of two sets of vectors [N, D] and [M, D]."""
        return self.encoder.similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2))

    def similarity_pairwise(self, embeddings1: Tensor, embeddings2: Tensor) -> Tensor:
        """Return the inner product [N] of each pair of rows."""
        return (torch.as_tensor(embeddings1).float() * torch.as_tensor(embeddings2).float()).sum(dim=1)


class MtebSearch(_MtebModel):
    """A model with any score rule, with MTEB's search protocol."""

    def index(self, corpus: Any, **_: Any) -> None:
        """Encode the documents of a task: a data set with the columns ``id`` and ``image``."""
        self._ids = list(corpus["id"])
        if self.encoder.model.method.learns_gallery:
            shown = corpus.select(range(min(SEEN, len(corpus))))
            self.encoder.see_gallery([one for some in _rows(shown) for one in some])
        self._documents = torch.cat([self.encoder.encode_document(some) for some in _rows(corpus)])

    def search(
        self,
        queries: Any,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Return query -> document -> score, for the ``top_k`` best documents of each query.

        With ``top_ranked`` (query -> documents), only these documents are ranked.
        """
        places = {document: place for place, document in enumerate(self._ids)}
        found: dict[str, dict[str, float]] = {}
        names = iter(queries["id"])
        for some in _rows(queries):
            scores = self.encoder.similarity(self.encoder.encode_query(some), self._documents)
            for row in scores:
                name = next(names)
                allowed = None if top_ranked is None else [places[one] for one in top_ranked[name]]
                columns = torch.arange(len(row)) if allowed is None else torch.tensor(allowed)
                best = row[columns].topk(min(top_k, len(columns)))
                found[name] = {
                    self._ids[int(columns[place])]: float(value)
                    for value, place in zip(best.values, best.indices, strict=True)
                }
        return found


def _rows(rows: Any) -> Iterator[list[Input]]:
    """Yield the inputs of an MTEB data set in batches; an instruction is appended to its text."""
    for batch in rows.iter(batch_size=BATCH):
        if batch.get("instruction") is not None:
            texts = zip(batch["text"], batch["instruction"], strict=True)
            batch["text"] = [text if more is None else f"{text} {more}" for text, more in texts]
        yield _inputs(batch)


def _inputs(batch: Mapping[str, Any]) -> list[Input]:
    """Return the inputs of a batch with the columns ``image`` and ``text``, row by row."""
    if batch.get("image") is None:
        raise DataError(
            "this task has no images, but composed queries and their candidates need them: choose an it2i "
            "task"
        )
    texts = batch.get("text") or [None] * len(batch["image"])
    return [{"image": image, "text": text} for image, text in zip(batch["image"], texts, strict=True)]
