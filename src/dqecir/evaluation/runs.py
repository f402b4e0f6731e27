"""Evaluate a model on a catalogue or under a published protocol, and write submissions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dqecir.data.annotations import Questions
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import Store
from dqecir.errors import DataError
from dqecir.evaluation.diagnosis import robustness
from dqecir.evaluation.evaluate import QueryFormatter, evaluate, query_scores
from dqecir.evaluation.metrics import KEPT, RetrievalResults, summarise
from dqecir.evaluation.missing_images import Missing, checked_benchmark
from dqecir.evaluation.protocols import Protocol, protocol_named
from dqecir.evaluation.submission import rank_questions, write_submissions
from dqecir.evaluation.table import baseline_rows, oracle_rows
from dqecir.methods.method import Method
from dqecir.model.composed_model import ComposedModel
from dqecir.model.image_store import store_of
from dqecir.model.public_weights import read_model
from dqecir.questions.asking import folder_questions
from dqecir.questions.pairs import Drawing
from dqecir.questions.paraphrases import paraphrases


def wording_of(method: Method, protocol: Protocol) -> QueryFormatter | None:
    """Return the function that words a protocol's questions; None if the method words its own queries."""
    return protocol.text if type(method).text is Method.text else None


def results_of(
    model: ComposedModel, store: Store, benchmark: Benchmark, protocol: Protocol, kept: int = KEPT
) -> RetrievalResults:
    """Return the results of a model on ``benchmark`` under a protocol; ``kept`` as in :func:`collect`.

    ``store`` has the benchmark's images in order.
    """
    text = wording_of(model.method, protocol)
    return evaluate(model.method, store, model.text_encoder, benchmark, text, kept)


def submit_stored(
    model: ComposedModel, store: Store, questions: Questions, protocol: Protocol, out: Path
) -> list[Path]:
    """Rank all questions among stored images, write the server's files to ``out``, and return their paths."""
    text = wording_of(model.method, protocol)
    scores = query_scores(model.method, store, model.text_encoder, questions, text)
    return write_submissions(out, rank_questions(questions, scores))


@contextmanager
def _stored(model: ComposedModel, images: Benchmark | Questions) -> Iterator[Store]:
    """Encode the images of a data set into a temporary folder, and yield their store."""
    with tempfile.TemporaryDirectory() as work:
        yield store_of(model, images, Path(work) / "tokens")


def evaluate_on_protocol(
    folder: Path,
    name: str,
    split: str,
    model_folder: Path | None,
    images: Path | None = None,
    missing: Missing = "refuse",
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics of a model under a published protocol, by their names, and facts of the run.

    ``folder`` is the published data set, ``name`` the protocol, ``images`` the folder of the pictures if it
    is another one, and ``model_folder`` a model, as in :func:`read_model`. Default: the shipped one. Raises
    :class:`DataError` if pictures are missing. If ``missing`` is ``skip``, the questions that need them are
    left out, and the facts name them; then it is raised only if no question is left.
    """
    protocol = protocol_named(name)
    benchmark = protocol.benchmark(folder, split, images=images, check_images=missing == "refuse")
    lacking: dict[str, Any] = {}
    if missing == "skip":
        benchmark, inventory = checked_benchmark(benchmark)
        if not benchmark.triplets:
            raise DataError(
                f"{folder}: without its missing images no question of {split} is left: name the folder of "
                "the pictures with --images"
            )
        lacking = {"missing": asdict(inventory), "note": inventory.sentence()}
    model = read_model(model_folder)
    with _stored(model, benchmark) as store:
        metrics = protocol.summarise(results_of(model, store, benchmark, protocol, protocol.kept))
    return metrics, {"protocol": name, "source": protocol.source, **_facts(benchmark, model), **lacking}


def submit(
    folder: Path,
    name: str,
    split: str,
    model_folder: Path | None,
    out: Path,
    images: Path | None = None,
) -> list[Path]:
    """Rank a split whose answers are not published, write the files for its server, and return their paths.

    Arguments and errors as in :func:`evaluate_on_protocol`; no picture may be missing. ``out`` is the folder
    of the files.
    """
    protocol = protocol_named(name)
    questions = protocol.questions(folder, split, images=images)
    model = read_model(model_folder)
    with _stored(model, questions) as store:
        return submit_stored(model, store, questions, protocol, out)


def evaluate_on_catalogue(
    folder: Path,
    split: str,
    model_folder: Path | None,
    *,
    gallery_column: str | None = None,
    per_reference: int = 2,
    drawing: Drawing = "balanced",
    seed: int = 0,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Return metrics of a model, of baselines with its encoder and of oracles, by name, and facts of the run.

    ``folder`` is a catalogue or has its own triplets; ``model_folder`` as in :func:`evaluate_on_protocol`.
    The other arguments choose the questions, as in :func:`folder_questions`.
    """
    model = read_model(model_folder)
    benchmark = folder_questions(
        folder,
        split,
        seed=seed,
        per_reference=per_reference,
        drawing=drawing,
        wording="evaluation",
        gallery_column=gallery_column,
        name=folder.name,
    )
    with _stored(model, benchmark) as store:
        method, encoder = model.method, model.text_encoder
        results = evaluate(method, store, encoder, benchmark)
        robust = robustness(method, store, encoder, results, paraphrases(benchmark, seed=seed))
        rows = {method.name: {**summarise(results), **robust}, **baseline_rows(model, store, benchmark)}
    unseen = sum(triplet.unseen_wording for triplet in benchmark.triplets)
    facts = {"data": folder.name, "drawing": drawing, "seed": seed, "unseen_wordings": unseen}
    return rows | oracle_rows(benchmark), {**facts, **_facts(benchmark, model)}


def _facts(benchmark: Benchmark, model: ComposedModel) -> dict[str, Any]:
    return {
        "split": benchmark.split,
        "queries": len(benchmark.triplets),
        "galleries": {name: len(gallery) for name, gallery in benchmark.galleries.items()},
        "mask_reference": benchmark.mask_reference,
        "model": model.fingerprint,
    }
