"""Write docs/performance.md from what the scripts in benchmarks/speed measured.

    python benchmarks/write_performance.py WORK

Reads step-*.json, mining.json, evaluation.json and extraction.json in WORK, as many as there are; what
is missing is said to be unmeasured. Nothing in the written document is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dqecir.files import write_text

ROOT = Path(__file__).parent.parent
Found = dict[str, Any]


def times(seconds: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| | seconds, median | least | most |", "|---|---|---|---|"]
    for name, row in seconds.items():
        lines.append(f"| {name} | {row['median']:.3g} | {row['least']:.3g} | {row['most']:.3g} |")
    return lines


def where(found: Found) -> str:
    machine = found["machine"]
    device = machine.get("accelerator", "no accelerator")
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {device}, torch "
        f"{machine['torch']}, load {machine['load']} at the end."
    )


def step(found: Found) -> list[str]:
    speed = found["samples_per_second"]
    return [
        f"### {found['tower'].replace('vit_', 'ViT-')}, batch {found['batch']}, {found['precision']}",
        "",
        *times(found["seconds"]),
        "",
        f"From stored tokens {speed['stored tokens']:.2f} samples a second, with the tower in every step "
        f"{speed['tower in every step']:.2f}: **{found['ratio']:.1f} times**. By operations alone it would "
        f"be {found['operations_ratio']:.1f} times. Rates reached: "
        + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in found["rate"].items())
        + f". {found['rounds']} rounds in turns. An epoch of 18,000 samples at this rate, extrapolated: "
        f"{18_000 / speed['stored tokens'] / 60:.0f} minutes against "
        f"{18_000 / speed['tower in every step'] / 60:.0f}. {where(found)}",
        "",
    ]


def mining(found: Found) -> list[str]:
    seconds = found["seconds"]
    return [
        "## Mining",
        "",
        *times(seconds),
        "",
        f"{found['queries']:,} queries and as many targets of 32 tokens, from ready embeddings to every "
        f"query's mid-zone; memory grew by {found['peak_growth_mb']:.0f} MB. Every token's score of every "
        f"pair at once would take {found['published_tensor_mb'] / 1000:.0f} GB; on a tenth "
        f"({found['tenth']:,}) it takes {found['tenth_tensor_mb'] / 1000:.1f} GB. {where(found)}",
        "",
    ]


def evaluation(found: Found) -> list[str]:
    return [
        "## Evaluation",
        "",
        *times(found["seconds"]),
        "",
        f"FashionIQ's three categories from ready scores: **{found['ratio']:.1f} times** as fast as sorting "
        "every row and comparing names, and ours also gives mAP, R-precision and the fifty best. The recalls "
        f"differ by {found['largest_difference_in_points']:.1g} points at most. {where(found)}",
        "",
    ]


def extraction(found: Found) -> list[str]:
    speed = found["images_per_second"]
    errors = ", ".join(f"{name} {100 * error:.2f} %" for name, error in found["relative_error"].items())
    return [
        "## Storing image tokens",
        "",
        *times(found["seconds"]),
        "",
        f"{found['images']:,} photos under the small model's tower: {speed['stored, fp16']:.0f} images a "
        f"second from files to disk, {speed['tower alone']:.0f} of the tower alone on ready tensors: "
        f"{100 * speed['stored, fp16'] / speed['tower alone']:.0f} %. Mean relative error of what is kept: "
        f"{errors}. {where(found)}",
        "",
    ]


def main() -> None:
    work = Path(sys.argv[1])
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.json"))}
    lines = [
        "# Performance",
        "",
        "Written by `benchmarks/write_performance.py` from the JSON of the scripts in `benchmarks/speed/`; "
        "no figure here is typed. Random weights of the true shapes, since time does not depend on the "
        "values. Not measured: anything on an accelerator; the scripts run there as they are.",
        "",
        "## Training step",
        "",
        "A query, its target and one negative a sample; the tower is frozen. `benchmarks/speed/step.py`.",
        "",
    ]
    steps = [value for name, value in found.items() if name.startswith("step-")]
    for value in steps:
        lines += step(value)
    if not steps:
        lines += ["Not measured.", ""]
    for name, write in (("mining", mining), ("evaluation", evaluation), ("extraction", extraction)):
        lines += write(found[name]) if name in found else [f"## {name.capitalize()}", "", "Not measured.", ""]
    write_text(ROOT / "docs" / "performance.md", "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
