"""Measure faults that recall does not show: semantic confusion, shortcuts, and dependence on wording.

Suppression of relevant images is measured elsewhere: by mAP and R-precision over all right answers
(``metrics.py``), and by the right answers among the negatives in training. Sources: composition gap (CIRCUS,
arXiv 2605.14787), paraphrases (PinPoint, 2603.04598).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store import Store
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import embed_images, embed_queries, query_scores
from dqecir.evaluation.metrics import RetrievalResults, Scores, collect
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import Method
from dqecir.methods.scoring import score
from dqecir.model.compose import CHUNK, compose
from dqecir.questions.confusables import ConfusablePair
from dqecir.questions.paraphrases import WORDINGS

LEAST = 20
"""Attributes with fewer confusable pairs than this are not reported separately."""


def confusion(
    method: Method, store: Store, encoder: TextEncoder, pairs: Sequence[ConfusablePair]
) -> dict[str, float]:
    """Measure how well two questions about the same reference that differ in one value are told apart.

    Returns percentages. ``told apart``: questions that rank their own target above the other question's
    (chance: 50). ``both told apart``: pairs in which both questions do. ``told apart/<column>``: the same for
    each attribute with enough pairs. Empty without pairs. The method must be in evaluation mode. ``store``
    has the benchmark's images in order; ``encoder`` encodes the texts.
    """
    if not pairs:
        return {}
    questions = [triplet for pair in pairs for triplet in (pair.first, pair.second)]
    queries = embed_queries(
        method,
        store,
        encoder,
        [triplet.reference for triplet in questions],
        [method.text(triplet.captions) for triplet in questions],
    )
    images = torch.tensor([triplet.target for triplet in questions]).unique()
    targets = embed_images(method, store, images)
    right = torch.empty(len(pairs), 2, dtype=torch.bool)
    for place, pair in enumerate(pairs):
        columns = torch.searchsorted(images, torch.tensor([pair.first.target, pair.second.target]))
        scores = score(queries[2 * place : 2 * place + 2], targets[columns], method.score_rule)
        right[place] = torch.stack([scores[0, 0] > scores[0, 1], scores[1, 1] > scores[1, 0]])
    found = {
        "told apart": 100 * float(right.float().mean()),
        "both told apart": 100 * float(right.all(dim=1).float().mean()),
    }
    names = np.array([pair.column for pair in pairs])
    for name in sorted(set(names.tolist())):
        own = right[torch.from_numpy(names == name)]
        if len(own) >= LEAST:
            found[f"told apart/{name}"] = 100 * float(own.float().mean())
    return found


def nearest_intents(
    method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark
) -> dict[str, float]:
    """Return ``other intent nearest``: the percentage of queries whose nearest query has another intent.

    Two queries have the same intent if they have a right answer in common. Queries of a category are compared
    by the cosine of their mean embeddings (of all their vectors for the rule ``likelihood``). Only queries
    for which there is another query with the same intent count; empty if there is none. The method must be in
    evaluation mode. ``store`` has the images of ``benchmark`` in order; ``encoder`` encodes the texts.
    """
    wrong, counted = 0, 0
    for category in benchmark.galleries:
        triplets = [triplet for triplet in benchmark.triplets if triplet.category == category]
        if len(triplets) < 2:
            continue
        texts = [method.text(triplet.captions) for triplet in triplets]
        references = [triplet.reference for triplet in triplets]
        queries = embed_queries(method, store, encoder, references, texts)
        queries = queries.flatten(1) if method.score_rule == "likelihood" else queries.mean(dim=1)
        unit = torch.nn.functional.normalize(queries, dim=1)
        similar = unit @ unit.T
        similar.fill_diagonal_(-torch.inf)
        shared = _share_an_answer(triplets, len(benchmark.image_ids))
        has_company = shared.any(dim=1)
        nearest = similar.argmax(dim=1)
        alike = shared[torch.arange(len(triplets)), nearest]
        wrong += int((has_company & ~alike).sum())
        counted += int(has_company.sum())
    return {"other intent nearest": 100 * wrong / counted} if counted else {}


def _share_an_answer(triplets: Sequence[Triplet], images: int) -> Tensor:
    """Return a mask [Q, Q]: which two different queries have a right answer in common.

    ``images`` is the number of images.
    """
    answers = torch.zeros(len(triplets), images)
    for row, triplet in enumerate(triplets):
        answers[row, list(triplet.relevant)] = 1
    shared = answers @ answers.T > 0
    return shared.fill_diagonal_(False)


def shortcuts(
    method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark, seed: int = 0
) -> dict[str, float]:
    """Return R@10, in percent, of questions of which one half comes from another query.

    ``R@10 text alone``: the reference is that of another query; ``R@10 image alone``: the text is. High
    values mean that the text or the image alone is enough. The other query is drawn as in
    :func:`with_another`. The method must be in evaluation mode. ``store`` has the images of ``benchmark`` in
    order; ``encoder`` encodes the texts.
    """
    found = {}
    for name, kind in (("R@10 text alone", "reference"), ("R@10 image alone", "captions")):
        changed = with_another(benchmark, kind, seed)
        results = collect(changed, query_scores(method, store, encoder, changed), kept=0)
        found[name] = 100 * float((results.ranks < 10).mean())
    return found


def with_another(benchmark: Benchmark, kind: str, seed: int) -> Benchmark:
    """Give each question the reference or the captions (``kind``) of another query of its category.

    A reference is not used if it is the question's own or one of its right answers; captions are not used if
    they request the same values or, without requested values, are the same. If none of 20 drawn queries fits,
    the question keeps its own part. ``seed`` draws. Raises :class:`DataError` if ``kind`` is neither
    ``reference`` nor ``captions``.
    """
    if kind not in ("reference", "captions"):
        raise DataError(f"{kind!r} is not a part of a query: choose reference or captions")
    random = np.random.default_rng(seed)
    by_category: dict[str, list[Triplet]] = {}
    for triplet in benchmark.triplets:
        by_category.setdefault(triplet.category, []).append(triplet)
    changed = []
    for triplet in benchmark.triplets:
        company = by_category[triplet.category]
        lender = triplet
        for place in random.permutation(len(company))[:20]:
            other = company[place]
            if kind == "reference":
                fitting = other.reference not in (triplet.reference, *triplet.relevant)
            else:
                fitting = (other.asked or other.captions) != (triplet.asked or triplet.captions)
            if fitting:
                lender = other
                break
        changed.append(replace(triplet, **{kind: getattr(lender, kind)}, subset=()))
    return replace(benchmark, triplets=tuple(changed))


def composition_gap(
    full: NDArray[np.float64], reference_alone: NDArray[np.float64], text_alone: NDArray[np.float64]
) -> float:
    """Return the mean of ``full`` minus the larger mean of the two halves; each is [Q] values of one metric.

    Near 0, the reference or the text alone is as good as both together.
    """
    return float(full.mean() - max(reference_alone.mean(), text_alone.mean()))


def half_results(
    method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark
) -> tuple[RetrievalResults, RetrievalResults]:
    """Return two results: of every question's reference alone, and of its text alone.

    The reference gets an empty text; the text gets the mean image tokens of its gallery as a reference. The
    method must be in evaluation mode. ``store`` has the images of ``benchmark`` in order; ``encoder`` encodes
    the texts.
    """
    targets = embed_images(method, store)
    by_reference, by_text = (
        collect(benchmark, _half_scores(method, store, encoder, benchmark, targets, half), kept=0)
        for half in ("reference", "text")
    )
    return by_reference, by_text


@torch.no_grad()
def _half_scores(
    method: Method, store: Store, encoder: TextEncoder, benchmark: Benchmark, targets: Tensor, half: str
) -> Iterator[tuple[str, NDArray[np.int64], Scores]]:
    for category, gallery in benchmark.galleries.items():
        candidates = torch.from_numpy(gallery)
        sums = [store.gather(some).sum(dim=0) for some in candidates.split(CHUNK)]
        nothing = torch.stack(sums).sum(dim=0) / len(candidates)  # [M, W]
        numbers = np.flatnonzero([triplet.category == category for triplet in benchmark.triplets])
        for start in range(0, len(numbers), CHUNK):
            some = numbers[start : start + CHUNK]
            triplets = [benchmark.triplets[number] for number in some]
            if half == "reference":
                tokens = store.gather(torch.tensor([triplet.reference for triplet in triplets]))
                texts = [method.text(("",))] * len(triplets)
            else:
                tokens = nothing.expand(len(triplets), *nothing.shape)
                texts = [method.text(triplet.captions) for triplet in triplets]
            query = compose(method, tokens, encoder(texts, True))
            scores = score(query.embeddings.cpu(), targets[candidates], method.score_rule)
            yield category, some, scores.numpy()


def paraphrase_spread(values: NDArray[np.float64]) -> float:
    """Return the best minus the worst of ``values`` [Q, W] over W wordings, the mean over questions."""
    return float((values.max(axis=1) - values.min(axis=1)).mean())


def robustness(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    results: RetrievalResults,
    reworded: Benchmark,
) -> dict[str, float]:
    """Return composition gap and paraphrase spread, in points of mAP@10, and mAP@10 of each half, in percent.

    The halves of a question are its reference alone and its text alone. The gap is the mAP@10 of ``results``
    less that of the better half. The spread is over the questions in ``reworded``, each in several wordings
    (:func:`~dqecir.questions.paraphrases.paraphrases`); if it has none, there is no spread. The method must
    be in evaluation mode. ``store`` has the benchmark's images in order; ``encoder`` encodes the texts.
    """
    precisions = [
        each.average_precision_10 for each in half_results(method, store, encoder, results.benchmark)
    ]
    found = {
        "mAP@10 reference alone": 100 * float(precisions[0].mean()),
        "mAP@10 text alone": 100 * float(precisions[1].mean()),
        "composition gap": 100 * composition_gap(results.average_precision_10, *precisions),
    }
    if reworded.triplets:
        asked = collect(reworded, query_scores(method, store, encoder, reworded), kept=0)
        found["paraphrase spread"] = 100 * paraphrase_spread(asked.average_precision_10.reshape(-1, WORDINGS))
    return found


def diagnose(
    method: Method,
    store: Store,
    encoder: TextEncoder,
    results: RetrievalResults,
    pairs: Sequence[ConfusablePair],
    reworded: Benchmark,
) -> dict[str, float]:
    """Return all measures of this file for a method: name -> value.

    ``results`` are the method's results on a benchmark, ``pairs`` as in :func:`confusion`, ``reworded`` as in
    :func:`robustness`. ``store`` has the benchmark's images in order; ``encoder`` encodes the texts.
    """
    benchmark = results.benchmark
    was_training = method.training
    method.eval()
    try:
        return {
            **confusion(method, store, encoder, pairs),
            **nearest_intents(method, store, encoder, benchmark),
            **shortcuts(method, store, encoder, benchmark),
            **robustness(method, store, encoder, results, reworded),
        }
    finally:
        method.train(was_training)
