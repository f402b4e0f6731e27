"""Plot the mid-zone and the attribute weights of trained models, and show the results of several models.

Questions are chosen by a rule and a seed, never by their results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dqecir.data.captions import join_fashioniq
from dqecir.data.catalogue import read_catalogue
from dqecir.data.triplets import Benchmark, Triplet
from dqecir.encoders.store import TokenStore
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import evaluate, query_scores
from dqecir.evaluation.metrics import RetrievalResults
from dqecir.evaluation.weights import asking_of, attribute_weights
from dqecir.experiments.examples import searched
from dqecir.io.contact_sheets import SheetRow, contact_sheet
from dqecir.io.plots import plotted
from dqecir.methods.dqe import Dqe
from dqecir.methods.negatives import NegativeSampling, mid_zone, target_relative_scores, zone_bounds
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.model.public_weights import read_model
from dqecir.questions.composing import catalogue_benchmark
from dqecir.search.retriever import ComposedRetriever

EASY, HARD = 0.25, 0.75
"""The easy and the hard question are at these quantiles of all questions, sorted by the rank of their
target."""


def models_named(given: Sequence[str]) -> dict[str, Path]:
    """Parse models given as ``NAME=FOLDER`` or FOLDER: name -> folder.

    Raises :class:`DataError` for equal names.
    """
    models: dict[str, Path] = {}
    for text in given:
        name, _, folder = text.rpartition("=")
        path = Path(folder)
        if (name or path.name) in models:
            raise DataError(
                f"two models are called {name or path.name!r}: give them different names, NAME=FOLDER"
            )
        models[name or path.name] = path
    return models


@dataclass(frozen=True)
class Shown:
    """A model, the stored images of a benchmark, and the model's results for all questions."""

    name: str
    model: ComposedModel
    store: TokenStore
    results: RetrievalResults
    retriever: ComposedRetriever
    """A retriever with an index of the images."""

    @property
    def benchmark(self) -> Benchmark:
        return self.results.benchmark


def draw_figures(
    models: Mapping[str, Path | None],
    data: Path,
    out: Path,
    *,
    split: str = "val",
    questions: int = 400,
    per_attribute: int = 3,
    zone: NegativeSampling | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write figures of ``models`` (name -> folder; None: the shipped one) to ``out``; return the files.

    They are made with ``questions`` questions about a split of the catalogue ``data``.

    ``zone.png``: the sorted Δ of an easy and a hard question under the first model, with the mid-zone of
    ``zone`` (default: the published bounds). ``weights-<name>.png``: the attribute weights of each model that
    has some. ``answers-<attribute>.png``: the results of all models for ``per_attribute`` questions about
    only that attribute. Raises :class:`DataError` if there is no model, or if data or models cannot be used.
    """
    if not models:
        raise DataError("name at least one model to draw figures of")
    benchmark = catalogue_benchmark(
        read_catalogue(data), split, seed=seed, count=questions, wording="evaluation"
    )
    shown = []
    for place, (name, folder) in enumerate(models.items()):
        model = read_model(folder)
        tokens = out / "tokens" / str(place)
        store = store_of(model, benchmark, tokens)
        results = evaluate(model.method, store, model.text_encoder, benchmark)
        retriever = ComposedRetriever(model)
        retriever.build_index(benchmark.image_paths, out / "index" / str(place), tokens=tokens)
        shown.append(Shown(name, model, store, results, retriever))
    written = [_zone_figure(shown[0], zone or NegativeSampling(), out / "zone.png")]
    for one in shown:
        if isinstance(one.model.method, Dqe) and one.model.method.options.attributes:
            written.append(_weights_figure(one, one.model.method, out / f"weights-{one.name}.png"))
    for attribute, asked in asking_of(benchmark).items():
        chosen = _asking_of_one(benchmark, asked, per_attribute, seed)
        if chosen:
            answers = [_answer(one, number) for number in chosen for one in shown]
            title = f"{attribute}: questions drawn by seed {seed}, each answered by {', '.join(models)}"
            written.append(contact_sheet(answers, out / f"answers-{attribute}.png", title))
    return written


def _asking_of_one(benchmark: Benchmark, asked: NDArray[np.bool_], count: int, seed: int) -> list[int]:
    """Return the numbers of up to ``count`` random questions that request only one attribute.

    ``asked``: mask [Q] of the questions that request this attribute.
    """
    others = np.stack(list(asking_of(benchmark).values())).sum(axis=0)
    alone = np.flatnonzero(asked & (others == 1))
    drawn = np.random.default_rng(seed).choice(alone, min(count, len(alone)), replace=False)
    return [int(number) for number in np.sort(drawn)]


def _answer(one: Shown, number: int) -> SheetRow:
    answer = searched(one.retriever, one.benchmark, number, candidates=6)
    return replace(answer, text=f"{one.name}: {answer.text}")


def _zone_figure(one: Shown, options: NegativeSampling, path: Path) -> Path:
    """Plot the sorted Δ of all candidates for an easy and a hard question, with the mid-zone shaded."""
    model = one.model
    temperature = float(model.backbone.temperature.detach())
    ordered = np.argsort(one.results.ranks, kind="stable")
    chosen = [int(ordered[round(share * (len(ordered) - 1))]) for share in (EASY, HARD)]

    with plotted(path, (10, 4), panels=2) as axes:
        for axis, name, number in zip(axes, ("easy", "hard"), chosen, strict=True):
            triplet = one.benchmark.triplets[number]
            gallery = torch.from_numpy(one.benchmark.galleries[triplet.category])
            asked = replace(one.benchmark, triplets=(triplet,))
            [(_, _, found)] = query_scores(model.method, one.store, model.text_encoder, asked)
            scores = torch.from_numpy(found)
            own = scores[:, gallery == triplet.target][:, 0]
            eligible = (gallery != triplet.target) & (gallery != triplet.reference)
            delta = target_relative_scores(scores, own)
            bounds = zone_bounds(delta, eligible[None], options, temperature)
            members = int(mid_zone(delta, eligible[None], bounds).sum())
            values = delta[0, eligible].sort().values
            right = torch.isin(gallery[eligible], torch.tensor(triplet.relevant))
            at = delta[0, eligible].argsort()
            axis.plot(range(1, len(values) + 1), values.tolist(), color="#1c1c1e", linewidth=1)
            axis.plot(
                (1 + torch.nonzero(right[at])[:, 0]).tolist(),
                values[right[at]].tolist(),
                "o",
                color="#1a8f4c",
                markersize=4,
                label="other right answers",
            )
            low, high = (float(bound[0]) for bound in bounds)
            axis.axhspan(low, high, color="#f0a030", alpha=0.3, label=f"mid-zone: {members} candidates")
            axis.axhline(0, color="grey", linewidth=0.6)
            axis.set_xscale("log")
            rank = one.results.ranks[number] + 1
            axis.set_title(f"{name}: target at rank {rank}\n“{_short(triplet)}”", fontsize=8)
            axis.set_xlabel("candidates, the highest scoring first")
            axis.set_ylabel("Δ = s(q, target) - s(q, candidate)")
            axis.legend(fontsize=7, loc="lower right")
    return path


def _short(triplet: Triplet, most: int = 60) -> str:
    text = join_fashioniq(triplet.captions)
    return text if len(text) <= most else text[: most - 1] + "…"


def _weights_figure(one: Shown, method: Dqe, path: Path) -> Path:
    """Plot mean and deviation of each attribute's weight, for questions that request it and for others."""
    weights = attribute_weights(method, one.store, one.model.text_encoder, one.benchmark)
    names = method.options.attributes
    asked = {name: rows for name, rows in asking_of(one.benchmark).items() if name in names}

    with plotted(path, (1.6 * len(asked) + 2, 4)) as [axis]:
        for place in range(2):
            own = [
                weights[torch.from_numpy(rows if place == 0 else ~rows), names.index(name)]
                for name, rows in asked.items()
            ]
            axis.bar(
                [group + 0.2 + 0.4 * place for group in range(len(asked))],
                [float(values.mean()) if len(values) else 0.0 for values in own],
                0.4,
                yerr=[float(values.std(unbiased=False)) if len(values) else 0.0 for values in own],
                label=f"where the text {'asks' if place == 0 else 'does not ask'} of the attribute",
            )
        labels = [f"{name}\n({int(rows.sum())} of {len(rows)} ask)" for name, rows in asked.items()]
        axis.set_xticks([group + 0.4 for group in range(len(asked))], labels, fontsize=8)
        axis.set_ylabel("attribute weight, mean ± standard deviation")
        axis.set_title(one.name, fontsize=9)
        axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
    return path
