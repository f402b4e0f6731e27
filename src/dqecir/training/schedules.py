"""Learning-rate schedules: factors of the rate as pure functions, and the settings that choose one.

Sources: per-epoch cosine of LAVIS and QuRe (arXiv 2507.12416), one cycle of SPRC (2310.05473), steps of
TIRG (1812.07119), CoSMo (CVPR 2021) and MGUR (2211.07394).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from dqecir.settings import Strict


def warm_up_rate(step: int, warm_up: int) -> float:
    """Return the factor of a linear warm-up: (step + 1) / warm_up, then 1."""
    return min((step + 1) / warm_up, 1.0) if warm_up else 1.0


def cosine_rate(step: int, steps: int, warm_up: int, final: float) -> float:
    """Return the factor of the learning rate at ``step``: linear warm-up, then cosine to ``final``."""
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(steps - warm_up, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def epoch_cosine_rate(epoch: int, epochs: float, final: float) -> float:
    """Return the factor of a cosine that falls once an epoch, as in LAVIS.

    ``final`` is that of epoch ``epochs``.
    """
    return _between(epoch / epochs, 1.0, final)


def one_cycle_rate(
    step: int, steps: int, peak: float, start_divisor: float = 25.0, end_divisor: float = 1e4
) -> float:
    """Return the factor of one cycle: from 1/start_divisor to 1, then to 1/(start_divisor·end_divisor).

    The maximum is at step ``peak · steps - 1`` and the end at step ``steps - 1``, as in PyTorch; after the
    end the rate is constant.
    """
    start = 1 / start_divisor
    top, last = peak * steps - 1, steps - 1
    if step <= top:
        return _between(step / top if top > 0 else 1.0, start, 1.0)
    return _between((step - top) / (last - top) if last > top else 1.0, 1.0, start / end_divisor)


def step_rate(epoch: float, milestones: tuple[float, ...], decay: float) -> float:
    """Return ``decay`` to the power of the number of reached ``milestones`` (in epochs)."""
    return decay ** sum(epoch >= milestone for milestone in milestones)


def _between(progress: float, start: float, end: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


class CosineSchedule(Strict):
    """Cosine from step to step, after ``warm_up_steps``, down to ``final_rate``."""

    kind: Literal["cosine"] = "cosine"

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``."""
        return cosine_rate(step, steps, warm_up, final)


class EpochCosineSchedule(Strict):
    """Cosine that falls once an epoch, towards ``final_rate`` (QuRe: 0.01); no warm-up."""

    kind: Literal["epoch_cosine"]

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``."""
        return epoch_cosine_rate(step // epoch_steps, steps / epoch_steps, final)


class OneCycleSchedule(Strict):
    """One cycle with its own warm-up and end (SPRC)."""

    kind: Literal["one_cycle"]
    peak: float = Field(default=0.3, gt=0, lt=1)
    """Position of the highest rate, as a share of the cycle."""
    start_divisor: float = Field(default=25.0, gt=1)
    end_divisor: float = Field(default=1e4, ge=1)
    built_for_epochs: float | None = Field(default=None, gt=0)
    """Length of the cycle, in epochs. Default: the run's. SPRC for CIRR has 80 and trains 50, so that the
    rate stays high. After a shorter cycle the rate stays at its end."""

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``."""
        length = steps if self.built_for_epochs is None else round(self.built_for_epochs * epoch_steps)
        return one_cycle_rate(step, length, self.peak, self.start_divisor, self.end_divisor)


class StepSchedule(Strict):
    """A rate that drops at ``milestones`` (epochs), after ``warm_up_steps`` (CoSMo: 30; MGUR: 35, 42)."""

    kind: Literal["step"]
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    decay: float = Field(default=0.1, gt=0, lt=1)

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``."""
        dropped = step_rate(step / epoch_steps, self.milestones, self.decay)
        return dropped * warm_up_rate(step, warm_up)


class ConstantSchedule(Strict):
    """One rate throughout, after ``warm_up_steps``."""

    kind: Literal["constant"]

    def factor(self, step: int, steps: int, epoch_steps: int, warm_up: int, final: float) -> float:
        """Return the factor of the rate at ``step`` of ``steps``."""
        return warm_up_rate(step, warm_up)


Schedule = Annotated[
    CosineSchedule | EpochCosineSchedule | OneCycleSchedule | StepSchedule | ConstantSchedule,
    Field(discriminator="kind"),
]
"""A schedule by its ``kind``."""
WITH_WARM_UP = ("cosine", "step", "constant")
"""Kinds that use ``warm_up_steps``."""
WITH_FINAL_RATE = ("cosine", "epoch_cosine")
"""Kinds that use ``final_rate``."""
