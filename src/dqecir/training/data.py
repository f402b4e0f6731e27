"""Training data: triplets as tensors, tokenised texts, and known right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dqecir.data.captions import caption_order
from dqecir.data.cells import UNKNOWN_CODE
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.encoder import TextBatch
from dqecir.encoders.store import Store
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import QueryFormatter
from dqecir.methods.attribute_heads import TextEncoder
from dqecir.methods.method import Method
from dqecir.methods.negatives import NegativeSampling
from dqecir.model.composed_model import ComposedModel


def attribute_codes(
    attributes: Mapping[str, Sequence[str]], images: int, columns: Mapping[str, Sequence[str]]
) -> Tensor:
    """Return [N, K]: the place of each image's value among the values of each column, or ``UNKNOWN_CODE``.

    ``attributes``: column -> the value of each of the N ``images``. ``columns``: K columns -> their values.
    A column that ``attributes`` lack, or a value that is not listed, is unknown.
    """
    codes = torch.full((images, len(columns)), UNKNOWN_CODE)
    for place, (column, values) in enumerate(columns.items()):
        known = {value: code for code, value in enumerate(values)}
        if column in attributes:
            codes[:, place] = torch.tensor([known.get(value, UNKNOWN_CODE) for value in attributes[column]])
    return codes


def asked_columns(triplets: Sequence[Triplet], columns: Mapping[str, Sequence[str]]) -> Tensor:
    """Return [Q, K]: 1 if the captions of a triplet request a column, else 0.

    A triplet that does not say what its captions request has ``UNKNOWN_CODE`` in all K ``columns``.
    """
    asked = torch.full((len(triplets), len(columns)), UNKNOWN_CODE)
    for row, triplet in enumerate(triplets):
        if triplet.asked:
            asked[row] = torch.tensor([int(column in triplet.asked) for column in columns])
    return asked


@dataclass(frozen=True)
class TrainingData:
    """The Q triplets of one benchmark as tensors.

    ``references`` and ``targets`` [Q] are positions of images. ``texts`` has 2Q rows (or 4Q,
    :func:`with_single_captions`): row q has the captions of query q in the given order, row Q + q in reverse
    order (:func:`caption_order`). ``relevant``: the known right answers of each query.
    """

    benchmark: Benchmark
    store: Store
    references: Tensor
    targets: Tensor
    texts: TextBatch
    relevant: tuple[frozenset[int], ...]
    rows: dict[str, Tensor]
    """Category -> the numbers of its queries."""
    attribute_values: Tensor
    """[N, K]: place of each image's true value in each column of the heads, or ``UNKNOWN_CODE``."""
    asked: Tensor
    """[Q, K]: whether each query's text requests each column of the heads: 1, 0 or ``UNKNOWN_CODE``."""
    reverse_texts: TextBatch | None = None
    """Texts of the reverse direction (target to reference), row by row as ``texts``; None if not used."""

    @classmethod
    def of(
        cls,
        benchmark: Benchmark,
        store: Store,
        model: ComposedModel,
        text: QueryFormatter | None = None,
    ) -> TrainingData:
        """Tokenise the texts of ``benchmark`` for ``model``; ``store`` has its images in their order.

        ``text`` returns the text of a triplet. Default: the method joins the captions. Raises
        :class:`DataError` if there are too few triplets.
        """
        triplets, method = benchmark.triplets, model.method
        columns = model.heads.config.columns if model.heads is not None else {}
        if len(triplets) < 2:
            raise DataError(f"{benchmark.name}: {len(triplets)} triplets are too few to train on: add some")
        texts, reverse = _texts(triplets, (0, 1), method, text)
        rows = {
            category: torch.tensor([q for q, triplet in enumerate(triplets) if triplet.category == category])
            for category in benchmark.galleries
        }
        return cls(
            benchmark,
            store,
            torch.tensor([triplet.reference for triplet in triplets]),
            torch.tensor([triplet.target for triplet in triplets]),
            model.text_encoder(texts),
            tuple(frozenset(triplet.relevant) for triplet in triplets),
            {category: queries for category, queries in rows.items() if len(queries)},
            attribute_codes(benchmark.attributes, len(benchmark.image_ids), columns),
            asked_columns(triplets, columns),
            model.text_encoder(reverse) if reverse else None,
        )

    def __len__(self) -> int:
        return len(self.references)

    def corpus(self, category: str, scope: str) -> Tensor:
        """Return the images from which a category's negatives are chosen: positions [N], ascending.

        ``scope`` is ``targets`` or ``gallery`` (:attr:`NegativeSampling.corpus`).
        """
        if scope == "gallery":
            return torch.from_numpy(self.benchmark.galleries[category])
        return self.targets[self.rows[category]].unique()

    def right_answers(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Return a mask [q, C]: which candidates (positions [C]) are known right answers of queries [q]."""
        places = {position: place for place, position in enumerate(candidates.tolist())}
        right = torch.zeros(len(queries), len(candidates), dtype=torch.bool)
        for row, query in enumerate(queries.tolist()):
            known = self.relevant[query]
            if len(known) < len(places):
                for position in known:
                    place = places.get(position)
                    if place is not None:
                        right[row, place] = True
            else:
                for position, place in places.items():
                    right[row, place] = position in known
        return right

    def eligible(self, queries: Tensor, candidates: Tensor, options: NegativeSampling) -> Tensor:
        """Return a mask [q, C]: which candidates (positions [C]) may be negatives of ``queries`` [q].

        A query's target never is; ``options`` say whether its reference and known right answers may be.
        """
        allowed = candidates[None] != self.targets[queries, None]
        if options.reference == "excluded":
            allowed &= candidates[None] != self.references[queries, None]
        if options.known_right == "left_out":
            allowed &= ~self.right_answers(queries, candidates)
        return allowed


@dataclass(frozen=True)
class Draw:
    """The triplets of one training step: q queries of this process, and C images of the whole batch."""

    batch: Tensor
    """Numbers of all queries of the batch, over all processes."""
    queries: Tensor
    """[q]: the part of ``batch`` that this process trains on."""
    negatives: Tensor
    """[q, K]: positions of the drawn negatives."""
    readings: Tensor
    """[q]: in which order the captions of each query are read (:func:`caption_order`)."""
    candidates: Tensor
    """[C]: positions of all targets and negatives, ascending."""
    images: Tensor
    """[q + C]: positions of the references, then of the candidates."""
    views: Tensor
    """[q + C]: which stored view of each image is used."""


def with_single_captions(
    data: TrainingData, method: Method, encoder: TextEncoder
) -> tuple[TextBatch, TextBatch | None]:
    """Return the texts and the reverse texts of ``data``, each followed by 2Q rows of single captions.

    These are the first caption of each of the Q queries alone, then the last of each. Reverse texts are None
    if ``data`` has none. Raises :class:`DataError` if a query has more than two captions.
    """
    triplets = data.benchmark.triplets
    if any(len(triplet.captions) > 2 for triplet in triplets):
        raise DataError("captions: four_way needs triplets of two captions, and one has more: choose two_way")
    single, reverse = _texts(triplets, (2, 3), method)
    texts = encoder([*data.texts.texts, *single])
    if data.reverse_texts is None:
        return texts, None
    return texts, encoder([*data.reverse_texts.texts, *reverse])


def _texts(
    triplets: Sequence[Triplet], readings: Sequence[int], method: Method, text: QueryFormatter | None = None
) -> tuple[list[str], list[str]]:
    """Return the texts of all triplets in each caption order, and the reverse texts of the method.

    ``readings`` are caption orders, as in :func:`caption_order`. There are no reverse texts if the method
    does not use them.
    """
    worded = text or (lambda triplet: method.text(triplet.captions))
    orders = [
        replace(triplet, captions=caption_order(triplet.captions, reading))
        for reading in readings
        for triplet in triplets
    ]
    reverse = [back for one in orders if (back := method.reverse_text(one.captions)) is not None]
    return [worded(triplet) for triplet in orders], reverse


def epoch_order(sizes: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of one epoch, in random order: arrays of query numbers, each query at most once.

    ``sizes`` are the numbers of queries of joined data sets. All queries of a batch are from the same data
    set, because it is too easy to tell the shirts of one from the shoes of another. A data set's incomplete
    last batch is left out, unless it is its only one.
    """
    random = np.random.default_rng([seed, epoch])
    batches: list[np.ndarray] = []
    start = 0
    for size in sizes:
        order = start + random.permutation(size)
        whole = max(size // batch_size, 1)
        batches.extend(order[: whole * batch_size].reshape(whole, -1))
        start += size
    random.shuffle(batches)
    return batches
