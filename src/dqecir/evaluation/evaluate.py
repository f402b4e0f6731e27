"""Scores of a method over a benchmark, from stored image tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.attributes import TextEncoder
from dqecir.backbones.store import Store
from dqecir.data.triplets import Benchmark
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect
from dqecir.methods.method import Method
from dqecir.scoring import score

CHUNK = 256
"""Images or queries embedded at once."""


@torch.no_grad()
def embed_images(method: Method, store: Store, images: Tensor | None = None) -> Tensor:
    """Target embeddings [N, n_t, D] of the stored ``images`` (all of them unless named), on the CPU."""
    wanted = torch.arange(len(store)) if images is None else images
    device = method.backbone.query_tokens.device
    parts = [method.embed_target(store.gather(some).to(device)).cpu() for some in wanted.split(CHUNK)]
    return torch.cat(parts)


@torch.no_grad()
def embed_queries(
    method: Method, store: Store, encoder: TextEncoder, references: Sequence[int], texts: Sequence[str]
) -> Tensor:
    """Query embeddings [Q, n_q, D] of references (positions in the store) with texts, on the CPU."""
    device = method.backbone.query_tokens.device
    parts = []
    for start in range(0, len(texts), CHUNK):
        text = encoder(texts[start : start + CHUNK]).to(device)
        tokens = store.gather(torch.tensor(references[start : start + CHUNK])).to(device)
        parts.append(method.embed_query(tokens, text).embeddings.cpu())
    return torch.cat(parts)


def query_scores(
    method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield (category, triplet numbers [q], scores [q, |gallery|]) for every query of a benchmark.

    Captions are joined in their own order, as FashionIQ's evaluation does.
    """
    targets = embed_images(method, store)
    for category, gallery in benchmark.galleries.items():
        numbers = np.array(
            [n for n, triplet in enumerate(benchmark.triplets) if triplet.category == category],
            dtype=np.int64,
        )
        candidates = targets[torch.from_numpy(gallery)]
        for start in range(0, len(numbers), CHUNK):
            some = numbers[start : start + CHUNK]
            triplets = [benchmark.triplets[n] for n in some]
            queries = embed_queries(
                method,
                store,
                encoder,
                [triplet.reference for triplet in triplets],
                [method.text(triplet.captions) for triplet in triplets],
            )
            yield category, some, score(queries, candidates, method.score_rule).numpy()


def evaluate(method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark) -> RetrievalResults:
    """Rank every query of ``benchmark`` by ``method``; ``store`` holds its images in their order."""
    was_training = method.training
    method.eval()
    try:
        return collect(benchmark, query_scores(method, store, encoder, benchmark))
    finally:
        method.train(was_training)
