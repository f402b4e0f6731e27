"""Draw example questions of a benchmark with a seed, and show a model's results as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dqecir.data.captions import join_fashioniq
from dqecir.data.images import load_image
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store import Store
from dqecir.evaluation.evaluate import QueryFormatter
from dqecir.evaluation.metrics import RetrievalResults
from dqecir.index.filters import Equal
from dqecir.io.contact_sheets import Candidate, SheetRow
from dqecir.methods.scoring import score
from dqecir.model.compose import compose_stored
from dqecir.model.composed_model import ComposedModel
from dqecir.search.retriever import ComposedRetriever


def drawn_questions(benchmark: Benchmark, count: int, seed: int) -> list[int]:
    """Return the numbers of up to ``count`` random questions, in order."""
    asked = len(benchmark.triplets)
    drawn = np.random.default_rng(seed).choice(asked, min(count, asked), replace=False)
    return [int(number) for number in np.sort(drawn)]


@torch.no_grad()
def answer_of(
    model: ComposedModel,
    store: Store,
    results: RetrievalResults,
    number: int,
    candidates: int,
    worded: QueryFormatter | None = None,
) -> SheetRow:
    """Return the best ``candidates`` results of question ``number`` by ``model``, with attribute weights.

    ``store`` has the benchmark's images in their order; ``worded`` is the ``text`` of :func:`query_scores`.
    """
    benchmark = results.benchmark
    triplet = benchmark.triplets[number]
    method = model.method
    text = method.text(triplet.captions) if worded is None else worded(triplet)
    [query] = compose_stored(method, store, model.text_encoder, [triplet.reference], [text])
    found = results.found[number, :candidates]
    found = found[found >= 0]
    targets = method.embed_target(store.gather(torch.from_numpy(found)).to(method.device))
    scores = score(query.embeddings, targets, method.score_rule)[0].tolist()
    weights: dict[str, float] = {}
    if query.attribute_weights is not None:
        names = [vocabulary.name for vocabulary in model.vocabularies]
        weights = dict(zip(names, query.attribute_weights[0].tolist(), strict=True))
    return SheetRow(
        load_image(benchmark.image_paths[triplet.reference]),
        join_fashioniq(triplet.captions) if worded is None else text,
        [
            Candidate(load_image(benchmark.image_paths[image]), value, image in triplet.relevant)
            for image, value in zip(found.tolist(), scores, strict=True)
        ],
        weights,
        _asked_of(benchmark, triplet),
    )


def searched(
    retriever: ComposedRetriever,
    benchmark: Benchmark,
    number: int,
    candidates: int,
    gallery_column: str | None = None,
) -> SheetRow:
    """Search the retriever's index for question ``number``; return the best ``candidates`` results.

    The index has the benchmark's images under their paths. If the benchmark has a gallery for each value of
    ``gallery_column``, the search is filtered by that column.
    """
    triplet = benchmark.triplets[number]
    reference, text = benchmark.image_paths[triplet.reference], join_fashioniq(triplet.captions)
    where = gallery_column and str(Equal(gallery_column, (triplet.category,)))
    found = retriever.search(reference, text, k=candidates, where=where)
    right = {benchmark.image_paths[image].resolve() for image in triplet.relevant}
    paths = [(Path(result.payload["path"]), result.score) for result in found.results]
    return SheetRow(
        load_image(reference),
        text,
        [Candidate(load_image(path), value, path.resolve() in right) for path, value in paths],
        found.attribute_weights,
        _asked_of(benchmark, triplet),
    )


def _asked_of(benchmark: Benchmark, triplet: Triplet) -> str:
    return f"{len(triplet.relevant)} right, asked of {benchmark.galleries[triplet.category].size} images"
