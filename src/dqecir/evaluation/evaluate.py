"""Score and rank the queries of a benchmark with a method, from stored image tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.annotations import Question, Questions
from dqecir.data.triplets import Benchmark, Triplet, Turn
from dqecir.encoders.store import Store
from dqecir.evaluation.metrics import KEPT, RetrievalResults, Scores, collect
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import Method
from dqecir.methods.score_rules import ScoreRule
from dqecir.methods.scoring import score
from dqecir.model.compose import CHUNK, compose_stored

QueryFormatter = Callable[[Triplet | Question | Turn], str]
"""Function: question, or earlier turn of a question -> its text."""


@torch.no_grad()
def embed_images(method: Method, store: Store, images: Tensor | None = None) -> Tensor:
    """Return target embeddings [N, n_t, D] on the CPU of ``images`` (positions in the store).

    Default: all images of the store.
    """
    wanted = torch.arange(len(store)) if images is None else images
    parts = [method.embed_target(store.gather(some).to(method.device)).cpu() for some in wanted.split(CHUNK)]
    return torch.cat(parts)


def embed_queries(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    references: Sequence[int],
    texts: Sequence[str],
    blank: bool = False,
    turns: Sequence[int] | None = None,
) -> Tensor:
    """Return query embeddings [Q, n_q, D] on the CPU of references (positions in the store) and texts.

    ``blank`` and ``turns`` as in :func:`compose_stored`. ``encoder`` encodes the texts.
    """
    queries = compose_stored(method, store, encoder, references, texts, blank, turns)
    return torch.cat([query.embeddings.cpu() for query in queries])


def query_scores(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    benchmark: Benchmark | Questions,
    text: QueryFormatter | None = None,
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    """Yield (category, numbers of q questions, scores [q, |gallery|]) until all questions are scored.

    ``text`` returns the text of a question, as a protocol defines it. Default: the method joins the captions
    in their order, as FashionIQ's evaluation does. ``store`` has the images of ``benchmark`` in order;
    ``encoder`` encodes the texts.
    """
    worded = text or (lambda question: method.text(question.captions))
    with_answers = isinstance(benchmark, Benchmark)
    asked: Sequence[Triplet | Question] = (
        [*benchmark.triplets] if isinstance(benchmark, Benchmark) else [*benchmark.questions]
    )
    targets = embed_images(method, store)
    for category, gallery in benchmark.galleries.items():
        numbers = np.array(
            [n for n, question in enumerate(asked) if question.category == category],
            dtype=np.int64,
        )
        if not len(numbers):
            continue
        dialogues = [turns_of(asked[n]) for n in numbers]
        turns = [turn for own in dialogues for turn in own]
        queries = embed_queries(
            method,
            store,
            encoder,
            [turn.reference for turn in turns],
            [worded(turn) for turn in turns],
            blank=not with_answers,
            turns=[len(own) for own in dialogues],
        )
        for some, scores in in_chunks(queries, targets[torch.from_numpy(gallery)], method.score_rule):
            yield category, numbers[some], scores


def turns_of(question: Triplet | Question) -> list[Triplet | Question | Turn]:
    """Return the turns of a question, oldest first; the question itself stands for the last."""
    return [*(question.earlier if isinstance(question, Triplet) else ()), question]


def in_chunks(queries: Tensor, candidates: Tensor, rule: ScoreRule) -> Iterator[tuple[slice, Scores]]:
    """Yield parts of the queries (a slice), and their scores [q, N], for all queries [Q, n_q, D].

    ``candidates`` are targets [N, n_t, D]. A part is so small that it is still in a cache when it is ranked.
    """
    for start in range(0, len(queries), CHUNK):
        some = slice(start, start + CHUNK)
        yield some, score(queries[some], candidates, rule).numpy()


def evaluate(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    benchmark: Benchmark,
    text: QueryFormatter | None = None,
    kept: int = KEPT,
) -> RetrievalResults:
    """Rank every query of ``benchmark`` with ``method``; ``store`` has its images in order.

    ``text`` as in :func:`query_scores`, ``kept`` as in :func:`collect`. ``encoder`` encodes the texts.
    """
    was_training = method.training
    method.eval()
    try:
        return collect(benchmark, query_scores(method, store, encoder, benchmark, text), kept)
    finally:
        method.train(was_training)
