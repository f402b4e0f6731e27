"""Compare the time of a training step from stored tokens with one that runs the frozen tower, as published.

    python -m benchmarks.speed.step --tower vit_g --out WORK/step-vit_g.json

Weights are random and have the published shapes, because time does not depend on their values. A sample is a
query, its target and one negative. dqecir: stored tokens of images, each distinct image once through the
Q-Former. As published: the three pictures of each sample through the tower at every step, then the same
Q-Former. Both train DQE-CIR's losses with AdamW in the same run on the same device, in turns, and in turns
with products of large square matrices, whose rate is the upper limit for a step. Afterwards, a step from
stored tokens is profiled.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from benchmarks.speed.profile import profiled
from benchmarks.speed.timing import machine, paired, square_product
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dqecir.encoders.blip2 import BLIP2_VIT_G, BLIP2_VIT_L, Blip2
from dqecir.encoders.encoder import TextBatch
from dqecir.io.files import write_json
from dqecir.methods.dqe import Dqe, DqeOptions
from dqecir.methods.method import TrainingBatch

SIZES = {"vit_g": BLIP2_VIT_G, "vit_l": BLIP2_VIT_L}
WORDS = 24
"""Word pieces of a text: FashionIQ's two captions have about 20."""


def a_batch(size: int, tokens: Tensor, generator: torch.Generator) -> TrainingBatch:
    """Return ``size`` samples whose references, targets and negatives are ``tokens`` [3 size, M, W]."""
    ids = torch.randint(1000, 20_000, (size, WORDS), generator=generator)
    text = TextBatch(ids, torch.ones_like(ids), torch.rand(size, 2, WORDS, generator=generator) < 0.1)
    device = tokens.device
    places = torch.arange(size, device=device)
    return TrainingBatch(
        reference=tokens[:size],
        text=text.to(device),
        candidates=tokens[size:],
        targets=places,
        negatives=(size + places)[:, None],
        right=torch.zeros(size, 2 * size, dtype=torch.bool, device=device),
        attribute_values=torch.full((2 * size, 0), -1, device=device),
    )


def method_of(tower: str) -> Dqe:
    """Return DQE-CIR over a random backbone of a published size with a frozen tower."""
    backbone = Blip2(SIZES[tower])
    backbone.freeze_tower()
    return Dqe(backbone, DqeOptions(lexicon_bias=2.0)).train()


def optimizer_of(method: Dqe) -> torch.optim.Optimizer:
    """Return AdamW over the trained parameters."""
    return torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-5, fused=True)


def train(
    method: Callable[[TrainingBatch], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    batch: TrainingBatch,
    precision: str,
) -> None:
    """Run one training step."""
    with torch.autocast(batch.reference.device.type, torch.bfloat16, enabled=precision == "bf16"):
        terms = method(batch)
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tower", choices=sorted(SIZES), required=True)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    method = method_of(given.tower).to(device)
    backbone, optimizer = method.backbone, optimizer_of(method)
    tower = backbone.config.tower
    pixels = torch.randn(3 * given.batch, 3, tower.image_size, tower.image_size, generator=generator)
    pixels = pixels.to(device)
    stored = torch.randn(3 * given.batch, tower.token_count, tower.token_width, generator=generator).half()
    shape = a_batch(given.batch, stored.to(device).float(), generator)

    def train_on(tokens: Tensor) -> None:
        batch = replace(shape, reference=tokens[: given.batch], candidates=tokens[given.batch :])
        train(method, optimizer, batch, given.precision)

    def ours() -> None:
        train_on(stored.to(device, non_blocking=True).float())

    def as_published() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=given.precision == "bf16"):
            tokens = torch.cat([backbone.image_tokens(part) for part in pixels.split(given.batch)])
        train_on(tokens.float())

    work: dict[str, Callable[[], None]] = {"stored tokens": ours, "tower in every step": as_published}
    operations = {}
    for name, step in work.items():
        with FlopCounterMode(display=False) as counter:
            step()
        operations[name] = counter.get_total_flops()
    product, size = square_product(device, given.precision)
    product()
    # Counting has warmed the steps up.
    times = paired({**work, "matrices": product}, device, given.rounds, warm_up=0)
    matrix_rate = size / times.pop("matrices")["median"]
    speed = {name: given.batch / row["median"] for name, row in times.items()}
    write_json(
        given.out,
        {
            "tower": given.tower,
            "batch": given.batch,
            "rounds": given.rounds,
            "precision": given.precision,
            "machine": machine(),
            "seconds": times,
            "samples_per_second": speed,
            "ratio": speed["stored tokens"] / speed["tower in every step"],
            "operations": operations,
            "operations_ratio": operations["tower in every step"] / operations["stored tokens"],
            "rate": {name: operations[name] / row["median"] for name, row in times.items()},
            "matrix_rate": matrix_rate,
            "profile": profiled(ours, device),
        },
    )


if __name__ == "__main__":
    main()
