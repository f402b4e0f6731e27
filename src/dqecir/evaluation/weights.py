"""Measure whether learned attribute weights follow the text, and how much they improve ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.cells import values_of
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store import Store
from dqecir.evaluation.evaluate import embed_images
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.dqe import Dqe
from dqecir.methods.scoring import score
from dqecir.model.compose import CHUNK, compose_stored


def asking_of(benchmark: Benchmark) -> dict[str, NDArray[np.bool_]]:
    """Return attribute -> mask [Q] of the questions that request one of its columns.

    Attributes that no question requests are left out.
    """
    values = values_of(benchmark.attributes)
    asked = {}
    for vocabulary in shipped_vocabularies(values):
        columns = {column for column in values if vocabulary.column(column) is not None}
        rows = np.array([bool(columns & set(triplet.asked)) for triplet in benchmark.triplets])
        if rows.any():
            asked[vocabulary.name] = rows
    return asked


def recall_by_asked(results: RetrievalResults, asked: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return R@10 and mAP@10, in percent, of the questions that request each attribute.

    The keys are ``asks of <attribute>/R@10`` and ``/mAP@10``. ``asked``: attribute -> mask [Q], from
    :func:`asking_of`.
    """
    found = {}
    for name, rows in asked.items():
        found[f"asks of {name}/R@10"] = 100 * float((results.ranks[rows] < 10).mean())
        found[f"asks of {name}/mAP@10"] = 100 * float(results.average_precision_10[rows].mean())
    return found


@torch.no_grad()
def attribute_weights(method: Dqe, store: Store, encoder: TextEncoder, benchmark: Benchmark) -> Tensor:
    """Return the attribute weights [Q, A] of all questions of a benchmark, on the CPU.

    ``store`` has the images of ``benchmark`` in order; ``encoder`` encodes the texts.
    """
    references, texts = _questions(method, benchmark.triplets)
    queries = compose_stored(method, store, encoder, references, texts)
    # A method with attributes always has weights, so this cannot be None.
    return torch.cat(
        [query.attribute_weights.cpu() for query in queries if query.attribute_weights is not None]
    )


def with_permuted_weights(
    method: Dqe, store: Store, encoder: TextEncoder, benchmark: Benchmark, seed: int = 0
) -> RetrievalResults:
    """Rank every question with the attribute weights of a random question of its category.

    The difference to the results with each question's own weights is what weights that follow the text gain.
    ``store`` has the images of ``benchmark`` in order; ``encoder`` encodes the texts; ``seed`` draws.
    """
    return collect(benchmark, _permuted_scores(method, store, encoder, benchmark, seed))


@torch.no_grad()
def _permuted_scores(
    method: Dqe, store: Store, encoder: TextEncoder, benchmark: Benchmark, seed: int
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    generator = torch.Generator().manual_seed(seed)
    targets = embed_images(method, store)
    categories = np.array([triplet.category for triplet in benchmark.triplets])
    for category, gallery in benchmark.galleries.items():
        numbers = np.random.default_rng(seed).permutation(np.flatnonzero(categories == category))
        candidates = targets[torch.from_numpy(gallery)]
        for start in range(0, len(numbers), CHUNK):
            some = numbers[start : start + CHUNK]
            references, texts = _questions(method, [benchmark.triplets[row] for row in some])
            tokens = store.gather(torch.tensor(references)).to(method.device)
            order = torch.randperm(len(some), generator=generator).to(method.device)
            query = method.embed_query(tokens, encoder(texts).to(method.device), order)
            yield category, some, score(query.embeddings.cpu(), candidates, method.score_rule).numpy()


def _questions(method: Dqe, triplets: Sequence[Triplet]) -> tuple[list[int], list[str]]:
    """Return the references of questions (positions in the store) and their texts."""
    return [triplet.reference for triplet in triplets], [
        method.text(triplet.captions) for triplet in triplets
    ]
