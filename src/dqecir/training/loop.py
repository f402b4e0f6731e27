"""The training loop of all methods: epochs, refresh of negatives, checkpoints, resuming.

The random numbers of a step depend only on the seed and the step, so a resumed run gives the same result as
one without interruption.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from dqecir.data.captions import READINGS
from dqecir.data.triplets import Benchmark
from dqecir.encoders.store import ReadAhead, Store
from dqecir.errors import DataError
from dqecir.evaluation.evaluate import evaluate
from dqecir.evaluation.metrics import summarise
from dqecir.io.files import write_bytes, write_json, write_text
from dqecir.io.progress import console, track
from dqecir.io.run_folder import claim
from dqecir.io.stopwatch import Stopwatch
from dqecir.methods.method import TrainingBatch
from dqecir.model.composed_model import ComposedModel
from dqecir.training.data import Draw, TrainingData, epoch_order, with_single_captions
from dqecir.training.mining import Miner
from dqecir.training.processes import processes
from dqecir.training.recipe import Recipe

PRIMARY_METRIC = "mAP@10"
"""The metric on dev that decides which model is the best."""

BY_REFERENCE = 100_000_000
"""If a frozen tower has more numbers than this, the models of a run name the file that it is from instead of
containing it."""

LOG_EVERY = 20
"""Number of steps between two lines of the log, and between two checks that the loss is finite."""


def bf16_pays(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and supported is not None and bool(supported())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context for computing in bfloat16 or in float32, by ``precision``: bf16, fp32 or auto.

    ``auto`` is bfloat16 if the device multiplies it faster.
    """
    enabled = precision == "bf16" or (precision == "auto" and bf16_pays(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def on_device(store: Store, device: torch.device, share: float) -> Store:
    """Return a copy of the store on a CUDA ``device``, if it needs at most ``share`` of its free memory.

    Otherwise, or for another device, return ``store`` itself. ``share`` is from 0 to 1.
    """
    if device.type != "cuda":
        return store
    free, _ = torch.cuda.mem_get_info(device)
    return store.to(device, int(share * free))


def parameter_groups(
    modules: nn.Module,
    rate: float,
    weight_decay: float,
    fast: list[nn.Parameter],
    factor: float,
    decay_everything: bool = False,
) -> list[dict[str, Any]]:
    """Return parameter groups for AdamW; the parameters ``fast`` get ``factor`` times the learning rate.

    Vectors and scalars get no weight decay, unless ``decay_everything``.
    """
    quick = {id(parameter) for parameter in fast}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in modules.parameters():
        if parameter.requires_grad:
            key = (id(parameter) in quick, decay_everything or parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * (factor if is_fast else 1.0),
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (is_fast, decays), parameters in groups.items()
    ]


@dataclass(frozen=True)
class Evaluator:
    """Measures a model during training; the model with the highest ``metric`` is the best."""

    measure: Callable[[ComposedModel], dict[str, float]]
    metric: str = PRIMARY_METRIC

    @classmethod
    def on(cls, benchmark: Benchmark, store: Store) -> Evaluator:
        """Return an evaluator that measures retrieval on ``benchmark``; ``store`` has its images in order."""
        return cls(
            lambda model: summarise(evaluate(model.method, store, model.text_encoder, benchmark, kept=0))
        )


class Trainer:
    """Trains one model by one recipe, in one run folder.

    ``RUN/last`` and ``RUN/best`` (by ``evaluator``) are model folders; ``RUN/log.jsonl`` and
    ``RUN/tensorboard`` are logs; an interrupted run resumes from ``RUN/state.pt``.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: ComposedModel,
        data: TrainingData,
        evaluator: Evaluator | None,
        run: Path,
        part_sizes: list[int],
        quiet: bool = False,
    ) -> None:
        settings = recipe.training
        self.accelerator = Accelerator(cpu=processes().device.type == "cpu")
        store = on_device(data.store, self.accelerator.device, settings.tokens_on_device)
        self.tokens = ReadAhead(store, self.accelerator.device)
        # On a CPU, reading ahead does not help: a step uses all cores, and takes much longer than reading.
        self.reads_ahead = self.accelerator.device.type == "cuda" and store is data.store
        data = replace(data, store=store)
        self.recipe, self.model, self.data, self.evaluator, self.run = recipe, model, data, evaluator, run
        self.quiet = quiet
        self.part_sizes = part_sizes
        model.backbone.freeze_tower()
        groups = parameter_groups(
            model.method,
            settings.learning_rate,
            settings.weight_decay,
            model.method.new_parameters(),
            settings.new_parameters_factor,
            settings.decay_everything,
        )
        optimizer = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.epsilon, fused=True)
        self.rates = [group["lr"] for group in groups]
        self.method, self.optimizer = self.accelerator.prepare(model.method, optimizer)
        self.texts, self.reverse_texts = data.texts, data.reverse_texts
        if settings.captions == "four_way":
            self.texts, self.reverse_texts = with_single_captions(data, model.method, model.text_encoder)
        self.miner = Miner(data, recipe.negatives)
        self.epoch_steps = len(epoch_order(self.part_sizes, settings.batch_size, 0, 0))
        self.steps = settings.steps or max(1, round(settings.epochs * self.epoch_steps))
        self.refresh_steps = max(1, round(recipe.negatives.refresh_epochs * self.epoch_steps))
        self.step = 0
        self.best = -1.0
        self.watch = Stopwatch(self.accelerator.device.type == "cpu")
        self.negatives_seen = torch.zeros(2, dtype=torch.int64, device=self.accelerator.device)
        """Number of negatives that were used so far, and how many of them were known right answers."""

    def fit(self) -> dict[str, float]:
        """Train to the end; return the metrics of the last evaluation, empty without an evaluator.

        Raises :class:`DataError` if ``RUN`` holds a finished run or one of another recipe, and if the loss is
        not a number.
        """
        if (self.run / "done.json").exists():
            raise DataError(f"{self.run} holds a finished run: name another folder, or remove this one")
        main = self.accelerator.is_main_process
        claim(self.run, "recipe.json", self.recipe, "run", writes=main)
        self._resume()
        settings = self.recipe.training
        writer = SummaryWriter(str(self.run / "tensorboard")) if main else None
        evaluate_steps = max(1, round(settings.evaluate_every * self.epoch_steps))
        metrics: dict[str, float] = {}
        self.method.train()
        what = f"training {self.recipe.method}"
        for step in track(range(self.step, self.steps), what, quiet=self.quiet or not main):
            self.watch.start()
            self.refresh_negatives(step)
            terms = self.train_step(step)
            self.step = step + 1
            self.watch.returned()
            if step % LOG_EVERY == 0 or self.step == self.steps:
                shown = self._checked(terms, step)
                self._log(writer, "train", {**shown, "rate": self.optimizer.param_groups[0]["lr"]})
            if self.evaluator is not None and (self.step % evaluate_steps == 0 or self.step == self.steps):
                self._checked(terms, step)
                metrics = self._evaluate(self.evaluator)
                self._log(writer, "dev", metrics)
            if self.step % settings.checkpoint_every == 0 and self.step < self.steps:
                self._checked(terms, step)
                self._save_state()
        if writer is not None:
            writer.close()
        self._save_model("last")
        if self.evaluator is None:
            self._save_model("best")
        if main:
            (self.run / "state.pt").unlink(missing_ok=True)
            seen, wrong = self.negatives_seen.tolist()
            write_json(
                self.run / "done.json",
                {
                    "steps": self.steps,
                    self.watch.name: self.watch.seconds,
                    "false_negatives": wrong / seen if seen else None,
                    "dev": metrics,
                },
            )
        return metrics

    def refresh_negatives(self, step: int) -> None:
        options = self.recipe.negatives
        generator = self._generator(step, 1)
        at_random = options.choose == "random" or (options.mined and options.warm_up == "random")
        if at_random and step == 0:
            self.miner.fill_at_random(generator)
        if self._refreshes(step):
            # All processes have the same weights, so each finds the same negatives.
            report = self.miner.refresh(self.model.method, generator)
            self._write_log({"what": "mining", "step": step, **report.as_dict()})

    def _refreshes(self, step: int) -> bool:
        return self.recipe.negatives.mined and step > 0 and step % self.refresh_steps == 0

    def _warming_up(self, step: int) -> bool:
        return self.recipe.negatives.mined and step < self.refresh_steps

    def train_step(self, step: int) -> dict[str, Tensor]:
        """Train one step; return the loss, its terms, and the share of right answers among the negatives.

        The numbers stay on the device, so that nothing waits for them.
        """
        settings = self.recipe.training
        factor = settings.schedule.factor(
            step, self.steps, self.epoch_steps, settings.warm_up_steps, settings.final_rate
        )
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        torch.manual_seed(_mixed(settings.seed, step, 2))
        batch = self.batch(step)
        with autocast(self.accelerator.device, settings.precision):
            terms: dict[str, Tensor] = self.method(batch)
        loss = torch.stack(list(terms.values())).sum()
        self.accelerator.backward(loss)
        if settings.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self.method.parameters(), settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.method.after_step()
        contrasted = self.model.method.contrasted(batch)
        seen, wrong = contrasted.sum(), (contrasted & batch.right).sum()
        self.negatives_seen += torch.stack([seen, wrong])
        shown = {name: value.detach() for name, value in terms.items()}
        return {"loss": loss.detach(), **shown, "false_negatives": wrong / seen.clamp(min=1)}

    def _checked(self, terms: dict[str, Tensor], step: int) -> dict[str, float]:
        """Return the means of a step's numbers over all processes.

        Raises :class:`DataError` if the loss is not finite.
        """
        together = torch.stack([value.float() for value in terms.values()])
        shared = self.accelerator.reduce(together, reduction="mean")
        values = dict(zip(terms, shared.tolist(), strict=True))  # This waits for the device.
        self.watch.stop()
        if not math.isfinite(values["loss"]):
            raise DataError(
                f"the loss is not a number at step {step}: lower training.learning_rate, or set "
                "training.precision to fp32"
            )
        return values

    def batch(self, step: int) -> TrainingBatch:
        """Return this process's part of the batch of a step, and count its negatives as drawn.

        Call it once for each step, in order.
        """
        data, device, draw = self.data, self.accelerator.device, self._draw(step)
        self.miner.pool.advance(draw.batch, draw.negatives.shape[1])
        tokens = self.tokens.gather(draw.images, draw.views)
        if self.reads_ahead and step + 1 < self.steps and not self._refreshes(step + 1):
            following = self._draw(step + 1)
            self.tokens.announce(following.images, following.views)
        queries, candidates = draw.queries, draw.candidates
        rows = queries + draw.readings * len(data)
        return TrainingBatch(
            reference=tokens[: len(queries)],
            text=self.texts[rows].to(device),
            candidates=tokens[len(queries) :],
            targets=torch.searchsorted(candidates, data.targets[queries]).to(device),
            negatives=torch.searchsorted(candidates, draw.negatives.contiguous()).to(device),
            right=data.right_answers(queries, candidates).to(device),
            attribute_values=data.attribute_values[candidates].to(device),
            reverse_text=None if self.reverse_texts is None else self.reverse_texts[rows].to(device),
            asked=data.asked[queries].to(device),
            progress=step / self.steps,
        )

    def _draw(self, step: int) -> Draw:
        """Return the draw of a step, without counting its negatives as drawn."""
        settings, options, data = self.recipe.training, self.recipe.negatives, self.data
        epoch, place = divmod(step, self.epoch_steps)
        order = epoch_order(self.part_sizes, settings.batch_size, settings.seed, epoch)[place]
        batch = torch.from_numpy(order)
        drawn = torch.zeros(len(batch), 0, dtype=torch.int64)
        if options.choose != "none" and not (self._warming_up(step) and options.warm_up == "in_batch"):
            drawn = self.miner.pool.upcoming(batch, options.count)
        generator = self._generator(step, 3)
        reading = torch.zeros(len(batch), dtype=torch.int64)
        readings = READINGS[settings.captions]
        if readings > 1:
            reading = torch.randint(0, readings, (len(batch),), generator=generator)
        views = torch.randint(0, settings.views, (len(batch),), generator=generator)
        candidates = torch.cat([data.targets[batch], drawn.flatten()]).unique()
        of_candidates = torch.randint(0, settings.views, (len(candidates),), generator=generator)
        # Draw for the whole batch, so that it does not depend on the number of processes.
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        return Draw(
            batch,
            batch[share],
            drawn[share],
            reading[share],
            candidates,
            images=torch.cat([data.references[batch[share]], candidates]),
            views=torch.cat([views[share], of_candidates]),
        )

    def _evaluate(self, evaluator: Evaluator) -> dict[str, float]:
        metrics = evaluator.measure(self.model)
        if metrics[evaluator.metric] > self.best:
            self.best = metrics[evaluator.metric]
            self._save_model("best")
        return metrics

    def _save_model(self, name: str) -> None:
        if self.accelerator.is_main_process:
            self.model.forget_fingerprints()
            self.model.notes = {**(self.model.notes or {}), "recipe": self.recipe.model_dump(mode="json")}
            tower = sum(parameter.numel() for parameter in self.model.backbone.tower.parameters())
            elsewhere = self.model.tower_source is not None and tower > BY_REFERENCE
            self.model.save_pretrained(self.run / name, tower_by_reference=elsewhere)

    def _save_state(self) -> None:
        if not self.accelerator.is_main_process:
            return
        pool = self.miner.pool
        buffer = io.BytesIO()
        torch.save(
            {
                "step": self.step,
                "best": self.best,
                "seconds": self.watch.seconds,
                "negatives_seen": self.negatives_seen.tolist(),
                "method": self.model.method.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "pool": {"members": pool.members, "counts": pool.counts, "drawn": pool.drawn},
            },
            buffer,
        )
        write_bytes(self.run / "state.pt", buffer.getvalue())

    def _resume(self) -> None:
        path = self.run / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.model.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best, self.watch.seconds = state["step"], state["best"], state["seconds"]
        self.negatives_seen.copy_(torch.tensor(state["negatives_seen"]))
        for name, values in state["pool"].items():
            setattr(self.miner.pool, name, values)
        self._forget_log_after(self.step)
        console.print(f"resuming {self.run} at step {self.step} of {self.steps}")

    def _forget_log_after(self, step: int) -> None:
        """Remove the log's lines after ``step``, because a resumed run repeats these steps."""
        path = self.run / "log.jsonl"
        if path.exists() and self.accelerator.is_main_process:
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def _generator(self, step: int, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(_mixed(self.recipe.training.seed, step, purpose))

    def _log(self, writer: SummaryWriter | None, what: str, values: dict[str, float]) -> None:
        if writer is None:
            return
        for name, value in values.items():
            writer.add_scalar(f"{what}/{name}", value, self.step)
        spent = {self.watch.name: round(self.watch.seconds, 2)}
        self._write_log({"what": what, "step": self.step, **spent, **values})

    def _write_log(self, values: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.run.mkdir(parents=True, exist_ok=True)
            with (self.run / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")


def _mixed(*numbers: int) -> int:
    """Return one seed from several numbers; a hash avoids the collisions that a sum would have."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
