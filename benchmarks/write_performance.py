"""Write docs/performance.md from the measurements of benchmarks/speed, and draw the growth of costs.

    python -m benchmarks.write_performance WORK

Reads the JSON of benchmarks/speed in WORK, if it exists, and the sections of the index and the service. A
section without a measurement stays as it is. No figure in the written document is typed by hand.
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
Measurement = dict[str, Any]
CARDS = (8, 24, 80)
USABLE = 0.9
"""Share of a GPU's memory that a step can use; the driver and gaps between blocks need the rest."""


def times(seconds: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| | seconds, median | least | most |", "|---|---|---|---|"]
    for name, row in seconds.items():
        lines.append(f"| {name} | {row['median']:.3g} | {row['least']:.3g} | {row['most']:.3g} |")
    return lines


def where(found: Measurement) -> str:
    machine = found["machine"]
    device = machine.get("accelerator", "no accelerator")
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {device}, torch "
        f"{machine['torch']}, load {machine['load']} at the end."
    )


def step(found: Measurement) -> list[str]:
    speed, profile = found["samples_per_second"], found["profile"]
    most = found["matrix_rate"]
    shares = sorted(profile["shares"].items(), key=lambda item: -item[1])
    return [
        f"### {shown(found['tower'])}, batch {found['batch']}, {found['precision']}",
        "",
        *times(found["seconds"]),
        "",
        f"{speed['stored tokens']:.2f} samples per second from stored tokens, "
        f"{speed['tower in every step']:.2f} with the tower in every step: **{found['ratio']:.1f} times** "
        f"as fast. Counted operations differ by a factor of {found['operations_ratio']:.1f}. Products of "
        f"large square matrices reach {most / 1e9:.0f} GFLOP/s in the same run; the steps reach: "
        + ", ".join(
            f"{name} {rate / 1e9:.0f}, **{100 * rate / most:.0f} %** of it"
            for name, rate in found["rate"].items()
        )
        + (
            f". {found['rounds']} rounds, in turns. Extrapolated to an epoch of 18,000 samples: "
            f"{18_000 / speed['stored tokens'] / 60:.1f} minutes instead of "
            f"{18_000 / speed['tower in every step'] / 60:.1f}. {where(found)}"
        ),
        "",
        f"Time of each kind of operation in a step from stored tokens ({profile['seconds']:.3g} seconds "
        "under the profiler):",
        "",
        "| " + " | ".join(name for name, _ in shares) + " |",
        "|---" * len(shares) + "|",
        "| " + " | ".join(f"{100 * share:.0f} %" for _, share in shares) + " |",
        "",
    ]


def mining(found: Measurement) -> list[str]:
    seconds = found["seconds"]
    return [
        "## Mining",
        "",
        *times(seconds),
        "",
        f"From embeddings to the mid-zone of every query, with {found['queries']:,} queries and as many "
        f"targets of 32 tokens. Memory grew by {found['peak_growth_mb']:.0f} MB. The scores of all tokens "
        f"of all pairs at once would need {found['published_tensor_mb'] / 1000:.0f} GB; for a tenth of them "
        f"({found['tenth']:,}) {found['tenth_tensor_mb'] / 1000:.1f} GB.{of_epoch(found)} {where(found)}",
        "",
    ]


def of_epoch(found: Measurement) -> str:
    """Return the share of mining in the fastest epoch of the steps above; empty if none was measured."""
    if "epoch" not in found:
        return ""
    share = found["seconds"]["whole size"]["median"] / found["epoch"]
    return (
        f" This is {100 * share:.1f} % of the fastest epoch above. It does not include the forward pass "
        "that embeds all queries and targets."
    )


def evaluation(found: Measurement) -> list[str]:
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
        "pairs, sort every row, write all names in that order, and compare each with the target's. dqecir "
        "counts the scores above the target's. From scores to metrics:",
        "",
        *times(found["metrics"]),
        "",
        f"**{ratios['metrics, recalls']:.0f} times** as fast for recalls, "
        f"{ratios['metrics, fifty best']:.0f} times as fast with the fifty best candidates of every query, "
        "which only figures and mAP@50 need. Seconds of the published steps, by category:",
        "",
        "| | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for category, taken in steps.items():
        lines.append(f"| {category} | " + " | ".join(f"{taken[name]:.3g}" for name in names) + " |")
    return [
        *lines,
        "",
        "From embeddings to metrics, including products:",
        "",
        *times(found["whole"]),
        "",
        "Compared with one product of all tokens and the published metrics, dqecir is "
        f"**{ratios['embeddings, one product']:.1f} times** as fast, because both need the same "
        "multiplications. Compared with SPRC's product, which is broadcast over queries and candidates and "
        f"copies the gallery for each query, it is **{ratios['embeddings, broadcast']:.0f} times** as fast "
        f"(the {found['broadcast_seconds']:.0f} seconds of that product are extrapolated from "
        f"{found['sample']} queries per category). The recalls differ by "
        f"{found['largest_difference_in_points']:.1g} points at most. {where(found)}",
        "",
    ]


def extraction(found: Measurement) -> list[str]:
    speed = {name: number(rate) for name, rate in found["images_per_second"].items()}
    errors = ", ".join(f"{name} {100 * error:.2f} %" for name, error in found["relative_error"].items())
    kept, together = found["images_per_second"]["stored, fp16"], found["one_after_the_other"]
    of = f"a {shown(found['tower'])} of random weights" if found["tower"] else "the small model's tower"
    shared = (
        "On this machine both use the same cores. One after the other, they would process "
        f"{number(together)} images per second, of which {100 * kept / together:.0f} % are reached. "
    )
    whole = f"Extrapolated to FashionIQ's 40,151 pictures: {40_151 / kept / 60:,.0f} minutes. "
    return [
        f"### {found['images']:,} pictures under {of}",
        "",
        *times(found["seconds"]),
        "",
        f"{speed['stored, fp16']} images per second from files to stored tokens, which is "
        f"**{100 * found['share']:.0f} %** of the {speed['tower alone']} that the tower alone processes "
        "from tensors. Reading, decoding and resizing alone, with the same threads: "
        f"{speed['reading alone']} images per second. "
        f"{'' if 'accelerator' in found['machine'] else shared}{found['rounds']} rounds in turns. "
        f"{whole if found['tower'] else ''}Mean relative error of stored tokens: {errors}. {where(found)}",
        "",
    ]


def memory(found: Measurement) -> list[str]:
    rows = found["counted"]
    batches = sorted({row["batch"] for row in rows})
    most = {(row["tower"], row["precision"], row["batch"]): row["most"] for row in rows}
    kinds = list(dict.fromkeys((row["tower"], row["precision"]) for row in rows))
    lines = [
        "## Memory of a training step",
        "",
        "In GB, counted operation by operation without running them: weights including the frozen tower, "
        "gradients, AdamW's moments, activations, and the tokens of the batch. Stored tokens on the device "
        "need additional memory. Attention is counted as on a CPU, which needs more memory than a GPU, "
        "especially in bf16.",
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
        f"The table assumes that {100 * USABLE:.0f} % of the GPU's memory is usable. All numbers are "
        "computed.",
    ]
    if found["checks"]:
        lines += [
            "For comparison, the memory of a process on this machine for the same step with a tower of one "
            "block, including its libraries:",
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


def compiling(found: Measurement | None) -> str:
    """Return a sentence about the gain of `torch.compile`."""
    if found is None:
        return "The effect of `torch.compile` is not measured."
    step = f"a step of {shown(found['tower'])}, batch {found['batch']}, fp32"
    if found["found"] is None:
        return (
            f"`torch.compile` of {step} did not finish within {found['limit']:.0f} seconds and was stopped."
        )
    plain, fast = (found["found"]["seconds"][name]["median"] for name in ("as it is", "compiled"))
    first = found["found"]["first"]
    pays = (
        f"it pays off after {max(1, first / (plain - fast)):.0f} steps"
        if plain > fast
        else "it does not pay off"
    )
    return (
        f"`torch.compile` of {step}: {plain:.2f} seconds; compiled {fast:.2f}, and {first:.0f} for the "
        f"first step: {pays}."
    )


def growth(found: Measurement) -> list[str]:
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
        f"Times are extrapolated from {found['queries']} queries against the whole corpus at each size, "
        f"from embeddings. The time of an evaluation of {found['asked']:,} questions is proportional to the "
        "size of the corpus; that of mining, with one query for each image, to its square. The bytes of "
        f"the store are computed. Scoring {found['queries']} queries against the largest corpus needed "
        f"{sizes[-1]['peak_growth_mb']:.0f} MB of memory. {where(found)}",
        "",
    ]


def draw_growth(sizes: list[Measurement], path: Path) -> None:
    """Draw three panels over the number of images, with logarithmic axes."""
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
    """Return a number with three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def section(write: Callable[[Measurement], list[str]], found: dict[str, Measurement]) -> list[str]:
    """Return what ``write`` makes of the measurement ``name``."""
    name = write.__name__
    return write(found[name]) if name in found else [f"## {name.capitalize()}", "", "Not measured.", ""]


def kept(written: str, before: str) -> str:
    """Return the document, with each section that is not measured as it was; sections keep their order."""
    head, *parts = written.split("\n## ")
    earlier = before.split("\n## ")[1:]
    chosen = [old if "Not measured" in part else part for part, old in zip(parts, earlier, strict=True)]
    return "\n## ".join([head, *(part.rstrip() + "\n" for part in chosen)])


def shown(name: str) -> str:
    """Return the name of a tower as in publications."""
    return name.replace("vit_", "ViT-").replace("ViT-l", "ViT-L")


def main() -> None:
    work = Path(sys.argv[1])
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*.json"))}
    lines = [
        "# Performance",
        "",
        "How long training, evaluation, encoding, indexes and the service take, and how much memory they "
        "need. `benchmarks/write_performance.py` writes this page from the JSON of the scripts in "
        "`benchmarks/`. Weights are random and have the published shapes, because time does not depend on "
        "their values.",
        "",
        "These commands measure it, also on a machine with an accelerator:",
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
        "A sample is a query, its target and one negative; the tower is frozen. Measured by "
        "`benchmarks/speed/step.py`.",
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
    lines += ["## Storing image tokens", "", "Measured by `benchmarks/speed/extraction.py`.", ""]
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
