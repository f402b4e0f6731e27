"""Training on a published split: texts as the protocol words them, the best epoch by its headline."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from dqecir.data.captions import caption_order
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import TokenStore
from dqecir.errors import DataError
from dqecir.evaluation.protocols import Protocol
from dqecir.evaluation.runs import wording_of
from dqecir.experiments.reproduce.measuring import results_of, tokens_of
from dqecir.experiments.reproduce.request import Request
from dqecir.model.composed_model import ComposedModel
from dqecir.training.data import TrainingData
from dqecir.training.loop import Trainer, on_cpu
from dqecir.training.recipe import Recipe


class ProtocolTrainer(Trainer):
    """A trainer whose ``best`` has the highest headline of a protocol on dev."""

    def __init__(self, protocol: Protocol, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.protocol = protocol

    def _evaluate(self) -> dict[str, float]:
        assert self.dev is not None
        benchmark, store = self.dev
        method = self.accelerator.unwrap_model(self.method)
        model = replace(self.model, method=method)
        results = results_of(model, store, benchmark, self.protocol, self.protocol.kept)
        metrics = self.protocol.summarise(results)
        if metrics[self.protocol.headline_name] > self.best:
            self.best = metrics[self.protocol.headline_name]
            self._save_model("best")
        return metrics


def training_data(
    benchmark: Benchmark, store: TokenStore, model: ComposedModel, protocol: Protocol
) -> TrainingData:
    """Triplets whose texts read as in the evaluation; Q queries.

    Without their own wording the recipe's conventions hold. Raises :class:`DataError` where there is
    nothing to train on.
    """
    columns = model.heads.config.columns if model.heads is not None else None
    data = TrainingData.of(benchmark, store, model.text_encoder, model.method, columns)
    if wording_of(model.method, protocol) is None:
        return data
    texts = [
        protocol.text(replace(triplet, captions=caption_order(triplet.captions, reading)))
        for reading in (0, 1)
        for triplet in benchmark.triplets
    ]
    return replace(data, texts=model.text_encoder(texts))


def train(
    request: Request,
    recipe: Recipe,
    protocol: Protocol,
    start: ComposedModel,
    splits: tuple[Benchmark, Benchmark],
) -> Path:
    """Train on the first of ``splits``, choose on the second; returns the run folder.

    Resumes what was killed; a finished run is left as it is. Of several processes one encodes.
    """
    run = request.trained_here
    if (run / "done.json").exists():
        return run
    torch.manual_seed(recipe.training.seed)  # new parameters are drawn from it
    model = start.with_method(recipe.method, recipe.options)
    training, dev = splits
    with PartialState(cpu=on_cpu()).main_process_first():
        store = tokens_of(model, training, request, recipe.training.views)
        dev_store = tokens_of(model, dev, request)
    data = training_data(training, store, model, protocol)
    ProtocolTrainer(protocol, recipe, model, data, (dev, dev_store), run, quiet=request.quiet).fit()
    return run


@dataclass(frozen=True)
class Course:
    """How a training went, by its log: (epoch, value) in order."""

    loss: tuple[tuple[float, float], ...]
    headline: tuple[tuple[float, float], ...]

    @property
    def best_epoch(self) -> float:
        """The epoch whose evaluation was the best, the first of equal ones."""
        return max(self.headline, key=lambda point: point[1])[0]

    @property
    def last_epoch(self) -> float:
        """The epoch of the last evaluation."""
        return self.headline[-1][0]


def course_of(run: Path, headline: str, epoch_steps: int) -> Course:
    """Read ``run/log.jsonl``; a step that was taken twice, before and after a kill, counts once.

    Raises :class:`DataError` for a log that is not there or not a training's.
    """
    path = run / "log.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        loss = {line["step"]: line["loss"] for line in lines if line["what"] == "train"}
        metric = {line["step"]: line[headline] for line in lines if line["what"] == "dev"}
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise DataError(f"{path} is not the log of a training ({error!r})") from None

    def by_epoch(points: dict[int, float]) -> tuple[tuple[float, float], ...]:
        return tuple((round(step / epoch_steps, 3), points[step]) for step in sorted(points))

    return Course(by_epoch(loss), by_epoch(metric))
