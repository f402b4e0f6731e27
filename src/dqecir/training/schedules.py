"""Learning-rate schedules: pure functions that return factors, and the settings that choose one.

Sources: the cosine over epochs of LAVIS and QuRe (arXiv 2507.12416), one cycle of SPRC (2310.05473), steps of
TIRG (1812.07119), CoSMo (CVPR 2021) and MGUR (2211.07394).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from dqecir.settings import Strict


def warm_up_rate(step: int, warm_up: int) -> float:
    """Return the factor of a linear warm-up at ``step``: (step + 1) / warm_up, at most 1."""
    return min((step + 1) / warm_up, 1.0) if warm_up else 1.0


def cosine_rate(step: int, steps: int, warm_up: int, final: float) -> float:
    """Return the factor at ``step``: linear warm-up over ``warm_up`` steps, then cosine to ``final``.

    ``steps`` is the number of all steps.
    """
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(steps - warm_up, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def epoch_cosine_rate(epoch: int, epochs: float, final: float) -> float:
    """Return the factor of a cosine from 1 to ``final`` that changes only between epochs, as in LAVIS.

    It would reach ``final`` in epoch number ``epochs``, counted from 0.
    """
    return _between(epoch / epochs, 1.0, final)


def one_cycle_rate(
    step: int, steps: int, peak: float, start_divisor: float = 25.0, end_divisor: float = 1e4
) -> float:
    """Return the factor of one cycle: from 1/start_divisor to 1, then to 1/(start_divisor·end_divisor).

    It is highest at step ``peak · steps - 1`` and lowest at step ``steps - 1``, as in PyTorch, and constant
    after that.
    """
    start = 1 / start_divisor
    top, last = peak * steps - 1, steps - 1
    if step <= top:
        return _between(step / top if top > 0 else 1.0, start, 1.0)
    return _between((step - top) / (last - top) if last > top else 1.0, 1.0, start / end_divisor)


def step_rate(epoch: float, milestones: tuple[float, ...], decay: float) -> float:
    """Return ``decay`` to the power of the number of ``milestones`` that ``epoch`` has reached."""
    return decay ** sum(epoch >= milestone for milestone in milestones)


def _between(progress: float, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class CosineSchedule(Strict):
    """A cosine that changes in every step, after ``warm_up_steps``, down to ``final_rate``."""

    kind: Literal["cosine"] = "cosine"

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``.

        ``warm_up``: steps of the warm-up; ``final``: the last factor; ``epoch_steps`` is not used.
        """
        return cosine_rate(step, steps, warm_up, final)


class EpochCosineSchedule(Strict):
    """A cosine that changes only between epochs, towards ``final_rate`` (QuRe: 0.01), without a warm-up."""

    kind: Literal["epoch_cosine"]

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``.

        ``epoch_steps``: steps of an epoch; ``final``: the last factor; ``warm_up`` is not used.
        """
        return epoch_cosine_rate(step // epoch_steps, steps / epoch_steps, final)


class OneCycleSchedule(Strict):
    """One cycle, up and down again, with its own warm-up and end (SPRC)."""

    kind: Literal["one_cycle"]
    peak: float = Field(default=0.3, gt=0, lt=1)
    """Where the rate is highest, as a share of the cycle."""
    start_divisor: float = Field(default=25.0, gt=1)
    end_divisor: float = Field(default=1e4, ge=1)
    built_for_epochs: float | None = Field(default=None, gt=0)
    """Length of the cycle in epochs. Default: that of the run. SPRC for CIRR has a cycle of 80 epochs and
    trains 50, so that the rate stays high. If the cycle is shorter than the run, the last rate stays."""

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``.

        ``epoch_steps``: steps of an epoch; ``warm_up`` and ``final`` are not used.
        """
        length = steps if self.built_for_epochs is None else round(self.built_for_epochs * epoch_steps)
        return one_cycle_rate(step, length, self.peak, self.start_divisor, self.end_divisor)


class StepSchedule(Strict):
    """The rate is multiplied by ``decay`` at each of ``milestones`` in epochs (CoSMo: 30; MGUR: 35, 42).

    The first ``warm_up_steps`` are a linear warm-up.
    """

    kind: Literal["step"]
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    decay: float = Field(default=0.1, gt=0, lt=1)

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``.

        ``epoch_steps``: steps of an epoch; ``warm_up``: steps of the warm-up; ``final`` is not used.
        """
        dropped = step_rate(step / epoch_steps, self.milestones, self.decay)
        return dropped * warm_up_rate(step, warm_up)


class ConstantSchedule(Strict):
    """The same rate in all steps after ``warm_up_steps``."""

    kind: Literal["constant"]

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``.

        ``warm_up``: steps of the warm-up; the others are not used.
        """
        return warm_up_rate(step, warm_up)


Schedule = Annotated[
    CosineSchedule | EpochCosineSchedule | OneCycleSchedule | StepSchedule | ConstantSchedule,
    Field(discriminator="kind"),
]
"""A schedule; its ``kind`` says which."""
WITH_WARM_UP = ("cosine", "step", "constant")
"""Kinds of schedules that use ``warm_up_steps``."""
WITH_FINAL_RATE = ("cosine", "epoch_cosine")
"""Kinds of schedules that use ``final_rate``."""
