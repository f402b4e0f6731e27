"""Write docs/performance.md from what the scripts in benchmarks/speed measured, and draw how costs grow.

    python -m benchmarks.write_performance WORK

Reads the JSON of benchmarks/speed in WORK, as much as there is, and the sections of the index and the
service. A section without any measurement in WORK stays as it is in the document, or says that it is not
measured. Nothing in the written document is typed by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmarks.index.report
import benchmarks.service.report
import matplotlib

from dqecir.io.files import write_text

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
Found = dict[str, Any]
CARDS = (8, 24, 80)
USABLE = 0.9
"""Share of a card's memory that a step may take: its driver and gaps between blocks have the rest."""


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
    speed, profile = found["samples_per_second"], found["profile"]
    most = found["matrix_rate"]
    shares = sorted(profile["shares"].items(), key=lambda item: -item[1])
    return [
        f"### {shown(found['tower'])}, batch {found['batch']}, {found['precision']}",
        "",
        *times(found["seconds"]),
        "",
        f"From stored tokens {speed['stored tokens']:.2f} samples a second, with the tower in every step "
        f"{speed['tower in every step']:.2f}: **{found['ratio']:.1f} times**. By operations alone it would "
        f"be {found['operations_ratio']:.1f} times. Products of large square matrices reach "
        f"{most / 1e9:.0f} GFLOP/s in the same run; "
        + ", ".join(
            f"{name} {rate / 1e9:.0f}, **{100 * rate / most:.0f} %** of it"
            for name, rate in found["rate"].items()
        )
        + f". {found['rounds']} rounds in turns. An epoch of 18,000 samples at this rate, extrapolated: "
        f"{18_000 / speed['stored tokens'] / 60:.1f} minutes against "
        f"{18_000 / speed['tower in every step'] / 60:.1f}. {where(found)}",
        "",
        f"Where a step from stored tokens spends its time (operations' own, {profile['seconds']:.3g} seconds "
        "under the profiler):",
        "",
        "| " + " | ".join(name for name, _ in shares) + " |",
        "|---" * len(shares) + "|",
        "| " + " | ".join(f"{100 * share:.0f} %" for _, share in shares) + " |",
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
        f"({found['tenth']:,}) it takes {found['tenth_tensor_mb'] / 1000:.1f} GB.{of_epoch(found)} "
        f"{where(found)}",
        "",
    ]


def of_epoch(found: Found) -> str:
    """How much of the quickest epoch of the steps above mining takes; nothing where none was measured."""
    if "epoch" not in found:
        return ""
    share = found["seconds"]["whole size"]["median"] / found["epoch"]
    return (
        f" That is {100 * share:.1f} % of the quickest epoch above; that queries and targets are embedded "
        "before it, a forward pass over all of them, is not in it."
    )


def evaluation(found: Found) -> list[str]:
    ratios, steps = found["ratios"], found["steps"]
    names = list(next(iter(steps.values())))
    sizes = ", ".join(
        f"{category} {count:,} in {found['galleries'][category]:,}"
        for category, count in found["queries"].items()
    )
    lines = [
        "## Evaluation",
        "",
        f"FashionIQ's three categories ({sizes}; 32 tokens of 256 numbers). The published codes score all "
        "pairs, sort every row whole, write all names in that order, and compare each with the target's; "
        "ours counts which scores are above the target's. From ready scores:",
        "",
        *times(found["metrics"]),
        "",
        f"**{ratios['metrics, recalls']:.0f} times** as fast where recalls are asked for, "
        f"{ratios['metrics, fifty best']:.0f} times with the fifty best candidates of every query, which "
        "only pictures and mAP@50 need. The published steps by category, seconds:",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for category, taken in steps.items():
        lines.append(f"| {category} | " + " | ".join(f"{taken[name]:.3g}" for name in names) + " |")
    return [
        *lines,
        "",
        "From ready embeddings, products included:",
        "",
        *times(found["whole"]),
        "",
        f"Against one product of all tokens and the published metrics: "
        f"**{ratios['embeddings, one product']:.1f} times**, "
        "for both wait for the same multiplications. Against a product that is broadcast over "
        "queries and candidates, as SPRC has it, which copies the gallery once a query: "
        f"**{ratios['embeddings, broadcast']:.0f} times** (its {found['broadcast_seconds']:.0f} seconds are "
        f"extrapolated from {found['sample']} queries a category). The recalls differ by "
        f"{found['largest_difference_in_points']:.1g} points at most. {where(found)}",
        "",
    ]


def extraction(found: Found) -> list[str]:
    speed = {name: number(rate) for name, rate in found["images_per_second"].items()}
    errors = ", ".join(f"{name} {100 * error:.2f} %" for name, error in found["relative_error"].items())
    kept, together = found["images_per_second"]["stored, fp16"], found["one_after_the_other"]
    of = f"a {shown(found['tower'])} of random weights" if found["tower"] else "the small model's tower"
    shared = (
        f"Both have the same cores here: one after the other they would give {number(together)}, of which "
        f"{100 * kept / together:.0f} % are reached. "
    )
    whole = f"FashionIQ's 40,151 pictures at this rate, extrapolated: {40_151 / kept / 60:,.0f} minutes. "
    return [
        f"### {found['images']:,} pictures under {of}",
        "",
        *times(found["seconds"]),
        "",
        f"{speed['stored, fp16']} images a second from files to disk, {speed['tower alone']} of the tower "
        f"alone on ready tensors: **{100 * found['share']:.0f} %**. Reading, decoding and resizing alone, "
        f"by the same threads, {speed['reading alone']} images a second. "
        f"{'' if 'accelerator' in found['machine'] else shared}{found['rounds']} rounds in turns. "
        f"{whole if found['tower'] else ''}Mean relative error of what is kept: {errors}. {where(found)}",
        "",
    ]


def memory(found: Found) -> list[str]:
    rows = found["counted"]
    batches = sorted({row["batch"] for row in rows})
    most = {(row["tower"], row["precision"], row["batch"]): row["most"] for row in rows}
    kinds = list(dict.fromkeys((row["tower"], row["precision"]) for row in rows))
    lines = [
        "## Memory of a training step",
        "",
        "Counted operation by operation without computing it, in GB: weights with the frozen tower, "
        "gradients, AdamW's moments, activations, the batch's tokens; stored tokens that are held on a "
        "device come on top. Attention counts as on a CPU, which keeps more than a GPU does, above all in "
        "bf16.",
        "",
        "| | "
        + " | ".join(f"batch {batch}" for batch in batches)
        + " | "
        + " | ".join(f"fits {gb} GB" for gb in CARDS)
        + " |",
        "|---" * (len(batches) + len(CARDS) + 1) + "|",
    ]
    for tower, precision in kinds:
        # A measurement that was ended early lacks the last of them.
        sizes = {batch: most.get((tower, precision, batch)) for batch in batches}
        fitting = [
            max((batch for batch, size in sizes.items() if size and size < USABLE * gb * 1e9), default=None)
            for gb in CARDS
        ]
        cells = [f"{size / 1e9:.1f}" if size else "not counted" for size in sizes.values()]
        cells += [str(one or "none of these") for one in fitting]
        lines.append(f"| {shown(tower)}, {precision} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The table assumes that {100 * USABLE:.0f} % of the GPU's memory is usable. All is computed.",
    ]
    if found["checks"]:
        lines += [
            "Beside it, what a process on this machine took for the same step with a tower of one block, "
            "what its libraries hold included:",
            "",
            "| | counted, GB | measured, GB |",
            "|---|---|---|",
        ]
    for row in found["checks"]:
        lines.append(
            f"| {shown(row['tower'])}, {row['precision']}, batch {row['batch']} | "
            f"{row['counted'] / 1e9:.2f} | {row['measured'] / 1e9:.2f} |"
        )
    return [*lines, "", f"{compiling(found['compiled'])} {where(found)}", ""]


def compiling(found: Found | None) -> str:
    """Whether `torch.compile` pays."""
    if found is None:
        return "Whether `torch.compile` pays is not measured."
    step = f"a step of {shown(found['tower'])}, batch {found['batch']}, fp32"
    if found["found"] is None:
        return f"`torch.compile` of {step} was not ready after {found['limit']:.0f} seconds and was given up."
    plain, fast = (found["found"]["seconds"][name]["median"] for name in ("as it is", "compiled"))
    first = found["found"]["first"]
    pays = (
        f"it has paid for itself after {max(1, first / (plain - fast)):.0f} steps"
        if plain > fast
        else "it does not pay"
    )
    return (
        f"`torch.compile` of {step}: {plain:.2f} seconds, compiled {fast:.2f}, the first {first:.0f}: {pays}."
    )


def growth(found: Found) -> list[str]:
    sizes = found["sizes"]
    stores = list(sizes[0]["store_bytes"])
    draw_growth(sizes, ROOT / "docs" / "pictures" / "growth.png")
    lines = [
        "## As the corpus grows",
        "",
        "![store, mining and evaluation by size of the corpus](pictures/growth.png)",
        "",
        "| images | "
        + " | ".join(f"store, {shown(name)}, GB" for name in stores)
        + " | evaluation, s | mining, s |",
        "|---" * (len(stores) + 3) + "|",
    ]
    for row in sizes:
        kept = " | ".join(f"{row['store_bytes'][name] / 1e9:.1f}" for name in stores)
        lines.append(
            f"| {row['images']:,} | {kept} | {row['evaluation_seconds']:.3g} | {row['mining_seconds']:.3g} |"
        )
    return [
        *lines,
        "",
        f"Extrapolated from {found['queries']} queries against the whole corpus at each size: an evaluation "
        f"of {found['asked']:,} questions grows with the corpus, mining of as many queries as there are "
        "images with its square, from ready embeddings both. The store's bytes are computed. While "
        f"{found['queries']} queries were scored against the largest, memory grew by "
        f"{sizes[-1]['peak_growth_mb']:.0f} MB. {where(found)}",
        "",
    ]


def draw_growth(sizes: list[Found], path: Path) -> None:
    """Three panels over the number of images, both axes logarithmic."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    images = [row["images"] for row in sizes]
    for name in sizes[0]["store_bytes"]:
        axes[0].plot(images, [row["store_bytes"][name] / 1e9 for row in sizes], "o-", label=shown(name))
    axes[0].legend(fontsize=7)
    for axis, key in ((axes[1], "evaluation_seconds"), (axes[2], "mining_seconds")):
        axis.plot(images, [row[key] for row in sizes], "o-")
    for axis, title in zip(
        axes,
        ("store, GB (computed)", "evaluation, s (extrapolated)", "mining, s (extrapolated)"),
        strict=True,
    ):
        axis.set(xscale="log", yscale="log", xlabel="images", title=title)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def number(value: float) -> str:
    """Three figures, and never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def section(write: Callable[[Found], list[str]], found: dict[str, Found]) -> list[str]:
    """What ``write`` makes of the measurement of its name."""
    name = write.__name__
    return write(found[name]) if name in found else [f"## {name.capitalize()}", "", "Not measured.", ""]


def kept(written: str, before: str) -> str:
    """Return the document, with each section that is not measured as it was; sections keep their order."""
    head, *parts = written.split("\n## ")
    earlier = before.split("\n## ")[1:]
    chosen = [old if "Not measured" in part else part for part, old in zip(parts, earlier, strict=True)]
    return "\n## ".join([head, *(part.rstrip() + "\n" for part in chosen)])


def shown(name: str) -> str:
    """A tower as people write it."""
    return name.replace("vit_", "ViT-").replace("ViT-l", "ViT-L")


def main() -> None:
    work = Path(sys.argv[1])
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.json"))}
    lines = [
        "# Performance",
        "",
        "Written by `benchmarks/write_performance.py` from the JSON of the scripts in `benchmarks/`; no "
        "figure here is typed. Random weights of the true shapes, since time does not depend on the values.",
        "",
        "On a machine with an accelerator the same commands measure it:",
        "",
        "<!-- not run: takes hours -->",
        "```",
        "python -m benchmarks.speed.all --out WORK",
        "python -m benchmarks.write_performance WORK",
        "```",
        "",
    ]
    measured = {value["machine"].get("accelerator") for value in found.values() if "machine" in value}
    if not measured - {None}:
        lines += ["Accelerator: **not measured**.", ""]
    lines += [
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
    elif "mining" in found:
        quickest = max(value["samples_per_second"]["stored tokens"] for value in steps)
        found["mining"]["epoch"] = 18_000 / quickest
    for write in (memory, mining, evaluation):
        lines += section(write, found)
    lines += ["## Storing image tokens", "", "`benchmarks/speed/extraction.py`.", ""]
    encoded = [value for name, value in found.items() if name.split("-")[0] == "extraction"]
    for value in encoded:
        lines += extraction(value)
    if not encoded:
        lines += ["Not measured.", ""]
    lines += section(growth, found)
    for report in (benchmarks.index.report, benchmarks.service.report):
        lines += report.section(work)
    document = ROOT / "docs" / "performance.md"
    write_text(document, kept("\n".join(lines).rstrip() + "\n", document.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
