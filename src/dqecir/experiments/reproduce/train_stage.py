"""Train on a published split with the protocol's texts; its headline metric chooses the best epoch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dqecir.data.triplets import Benchmark
from dqecir.errors import DataError
from dqecir.evaluation.protocols import Protocol
from dqecir.evaluation.runs import results_of, wording_of
from dqecir.experiments.reproduce.measuring import tokens_of
from dqecir.experiments.reproduce.request import Request
from dqecir.io.plots import plotted
from dqecir.model.composed_model import ComposedModel
from dqecir.training.build import build_trainer, model_for
from dqecir.training.loop import Evaluator
from dqecir.training.processes import processes
from dqecir.training.recipe import Recipe


def train(
    request: Request,
    recipe: Recipe,
    protocol: Protocol,
    start: ComposedModel,
    splits: tuple[Benchmark, Benchmark],
) -> None:
    """Train on the first of ``splits``, and choose the best epoch on the second.

    An interrupted run is resumed; a finished run is not changed. If there are several processes, one encodes
    the images. ``start`` is the untrained model. The run is in the request's folder.
    """
    run = request.trained_here
    if (run / "done.json").exists():
        return
    model = model_for(recipe, start)
    training, dev = splits
    with processes().main_process_first():
        store = tokens_of(model, training, request, recipe.training.views)
        dev_store = tokens_of(model, dev, request)
    evaluator = Evaluator(
        lambda trained: protocol.summarise(results_of(trained, dev_store, dev, protocol, protocol.kept)),
        protocol.headline_name,
    )
    text = wording_of(model.method, protocol)
    build_trainer(recipe, model, [(training, store)], evaluator, run, text).fit()


@dataclass(frozen=True)
class TrainingCourse:
    """The course of a training, by its log: (epoch, value) pairs of the loss and the headline metric."""

    loss: tuple[tuple[float, float], ...]
    headline: tuple[tuple[float, float], ...]

    @property
    def best_epoch(self) -> float:
        """Epoch of the best evaluation; of several equally good ones, the first."""
        return max(self.headline, key=lambda point: point[1])[0]

    @property
    def last_epoch(self) -> float:
        """The epoch of the last evaluation."""
        return self.headline[-1][0]


def course_of(run: Path, headline: str, epoch_steps: int) -> TrainingCourse:
    """Read the course of a training from ``run/log.jsonl``.

    A step that was repeated after an interruption counts once. ``headline`` is the metric's name,
    ``epoch_steps`` the number of steps of an epoch. Raises :class:`DataError` if the log is missing, or not
    that of a training.
    """
    path = run / "log.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        loss = {line["step"]: line["loss"] for line in lines if line["what"] == "train"}
        metric = {line["step"]: line[headline] for line in lines if line["what"] == "dev"}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{path} is not the log of a training ({error!r}): train again") from None

    def by_epoch(points: dict[int, float]) -> tuple[tuple[float, float], ...]:
        return tuple((round(step / epoch_steps, 3), points[step]) for step in sorted(points))

    return TrainingCourse(by_epoch(loss), by_epoch(metric))


def draw_course(course: TrainingCourse, headline: str, path: Path) -> Path:
    """Draw the loss of the steps, and the headline of the evaluations, over epochs, as PNG.

    Return ``path``.
    """
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
