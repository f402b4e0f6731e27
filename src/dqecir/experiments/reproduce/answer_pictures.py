"""Pictures of a reproduction: the course of the training, and answers to questions drawn by seed."""

from __future__ import annotations

from pathlib import Path

from dqecir.encoders.store import TokenStore
from dqecir.evaluation.metrics import RetrievalResults
from dqecir.evaluation.protocols import Protocol
from dqecir.evaluation.runs import wording_of
from dqecir.experiments.examples import answer_of, drawn_questions
from dqecir.experiments.reproduce.train_stage import Course
from dqecir.io.contact_sheets import contact_sheet
from dqecir.io.plots import plotted
from dqecir.model.composed_model import ComposedModel

QUESTIONS, CANDIDATES, SEED = 8, 6, 0


def draw_course(course: Course, headline: str, path: Path) -> Path:
    """Write the loss of the steps and the headline of the evaluations over epochs, as PNG."""
    with plotted(path, (10, 4), panels=2) as axes:
        for axis, points, name, mark in (
            (axes[0], course.loss, "loss of a step", ""),
            (axes[1], course.headline, f"{headline} on val, percent", "o"),
        ):
            axis.plot([epoch for epoch, _ in points], [v for _, v in points], f"{mark}-", markersize=3)
            axis.set_xlabel("epochs")
            axis.set_ylabel(name)
        best = course.best_epoch
        axes[1].axvline(best, color="#1a8f4c", linewidth=0.8, label=f"best: {best:g}")
        axes[1].legend(frameon=False)
    return path


def draw_answers(
    model: ComposedModel,
    store: TokenStore,
    results: RetrievalResults,
    protocol: Protocol,
    path: Path,
) -> Path:
    """Write a sheet of questions drawn by seed, never by success, and what each of them found."""
    worded = wording_of(model.method, protocol)
    answers = [
        answer_of(model, store, results, number, CANDIDATES, worded)
        for number in drawn_questions(results.benchmark, QUESTIONS, SEED)
    ]
    return contact_sheet(answers, path, f"{protocol.name}: questions drawn by seed {SEED}")
