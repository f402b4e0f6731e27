"""Pictures of a reproduction: the course of the training, and answers to questions drawn by seed."""

from __future__ import annotations

import io
from pathlib import Path

from dqecir.encoders.store import TokenStore
from dqecir.evaluation.metrics import RetrievalResults
from dqecir.evaluation.protocols import Protocol
from dqecir.evaluation.runs import wording_of
from dqecir.experiments.examples import answer_of, drawn_questions
from dqecir.experiments.reproduce.train_stage import Course
from dqecir.io.contact_sheets import contact_sheet
from dqecir.io.files import write_bytes
from dqecir.model.composed_model import ComposedModel

QUESTIONS, CANDIDATES = 8, 6


def draw_course(course: Course, headline: str, path: Path) -> Path:
    """Write the loss of the steps and the headline of the evaluations over epochs, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, points, name, mark in (
        (axes[0], course.loss, "loss of a step", ""),
        (axes[1], course.headline, f"{headline} on val, percent", "o"),
    ):
        axis.plot([epoch for epoch, _ in points], [value for _, value in points], f"{mark}-", markersize=3)
        axis.set_xlabel("epochs")
        axis.set_ylabel(name)
    axes[1].axvline(course.best_epoch, color="#1a8f4c", linewidth=0.8, label=f"best: {course.best_epoch:g}")
    axes[1].legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    write_bytes(path, buffer.getvalue())
    return path


def draw_answers(
    model: ComposedModel,
    store: TokenStore,
    results: RetrievalResults,
    protocol: Protocol,
    path: Path,
    seed: int = 0,
) -> Path:
    """Write a sheet of questions drawn by seed, never by success, and what each of them found."""
    worded = wording_of(model.method, protocol)
    answers = [
        answer_of(model, store, results, number, CANDIDATES, worded)
        for number in drawn_questions(results.benchmark, QUESTIONS, seed)
    ]
    return contact_sheet(answers, path, f"{protocol.name}: questions drawn by seed {seed}")
