"""Write docs/results.md and the table of the README from what the other benchmarks measured.

    python benchmarks/write_results.py WORK

Reads every JSON that the other scripts left in WORK; a figure that is not there is said to be
unmeasured. Nothing in the written parts is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dqecir.files import write_text

ROOT = Path(__file__).parent.parent
METRICS = ("R@1", "R@10", "R@50", "mAP@10")
START, END = "<!-- results: written by benchmarks/write_results.py -->", "<!-- end of results -->"
TRIALS = {
    "garments": "An early trial of contrast on other garments: 83.5 / 96.2 / 65.1 (R@10, R@50, mAP@10).",
    "photos": "An early trial of contrast on easier questions (one or two changes) about the same photos: "
    "44.6 R@10 and 21.4 mAP@10, with 25.9 and 10.4 for image plus text.",
}


def cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "–"
    if isinstance(value, dict):
        return f"{value['mean']:.1f} ± {value['sd']:.1f}"
    return f"{value:.1f}"


def comparison(result: dict[str, Any]) -> list[str]:
    galleries = ", ".join(f"{name} {size:,}" for name, size in result["galleries"].items())
    pairs = result["trained"].items()
    lines = [
        f"## {result['name'].capitalize()}",
        "",
        f"{result['queries']:,} questions; galleries: {galleries}; {result['triplets']:,} training triplets; "
        f"mean ± standard deviation of {result['seeds']} seeds; half of the questions in wordings that "
        f"training never shows. Budget: the operations of {result['reference_steps']} steps of 64 of "
        "in-batch contrast, mining included, steps fixed beforehand. "
        f"Machine: {result['machine']}, {result['precision']}, one thread a run.",
        "",
        "| ranked by | "
        + " | ".join(METRICS)
        + " | mAP@10 seen | unseen | steps | CPU-s | right answers drawn |",
        "|---|" + "---|" * (len(METRICS) + 5),
    ]
    for name, row in pairs:
        metrics, counted = row["spread"], result["counted"][name]
        cells = [cell(metrics, key) for key in (*METRICS, "seen/mAP@10", "unseen/mAP@10")]
        wrong = f"{100 * row['mining'][-1]['false_negatives']:.2f} %" if row["mining"] else "–"
        cells += [str(int(counted["steps"])), f"{row['cpu_seconds']:.0f}", wrong]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, row in result["fixed"].items():
        cells = [cell(row, key) for key in (*METRICS, "seen/mAP@10", "unseen/mAP@10")]
        lines.append(f"| *{name}* | " + " | ".join(cells) + " | – | – | – |")
    if len(result["galleries"]) > 1:
        lines += per_category(result)
    best_fixed = max(row["mAP@10"] for name, row in result["fixed"].items() if not name.startswith("oracle"))
    lines += ["", "mAP@10 by seed, and its lead over the best of image only, text only and their sum:", ""]
    lines += ["| | by seed | least lead |", "|---|---|---|"]
    for name, row in pairs:
        seeds = ", ".join(f"{value:.1f}" for value in row["by_seed"])
        lines.append(f"| {name} | {seeds} | {min(row['by_seed']) - best_fixed:+.1f} |")
    if result["name"] in TRIALS:
        lines += ["", TRIALS[result["name"]]]
    return [*lines, ""]


def per_category(result: dict[str, Any]) -> list[str]:
    keys = [f"{category}/{metric}" for category in result["galleries"] for metric in ("R@10", "mAP@10")]
    lines = ["", "By category:", "", "| ranked by | " + " | ".join(keys) + " |", "|---|" + "---|" * len(keys)]
    for name, row in result["trained"].items():
        lines.append(f"| {name} | " + " | ".join(cell(row["spread"], key) for key in keys) + " |")
    for name, row in result["fixed"].items():
        lines.append(f"| *{name}* | " + " | ".join(cell(row, key) for key in keys) + " |")
    return lines


def rendering(result: dict[str, Any]) -> list[str]:
    lines = [
        "## Drawing garments",
        "",
        f"Median of {result['rounds']} rounds (least to most), one core. Machine: {result['machine']}.",
        "",
        "| side | images a second |",
        "|---|---|",
    ]
    for size, row in result["sizes"].items():
        lines.append(f"| {size} | {row['median']:.0f} ({row['least']:.0f} to {row['most']:.0f}) |")
    return [*lines, ""]


def backbone(result: dict[str, Any]) -> list[str]:
    seconds = result["cpu_seconds"]
    stages = ", ".join(f"{name} {value:.0f} CPU-s" for name, value in seconds.items())
    lines = [
        "## The backbone from scratch",
        "",
        f"{result['parameters']['whole'] / 1e6:.1f} M parameters, "
        f"{result['parameters']['tower'] / 1e6:.1f} M of them in the tower. "
        f"{stages}; all threads counted. Machine: {result['machine']}. One seed.",
        "",
        "Share of val images whose attribute the heads of stage 0 name rightly (in brackets: the commonest "
        "value):",
        "",
    ]
    columns = sorted({c for row in result["accuracy"].values() for c in row} - {"all"}) + ["all"]
    lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for name, row in result["accuracy"].items():
        known = result["majority"][name]
        cells = [
            (f"{row[c]:.3f}" + (f" ({known[c]:.3f})" if c in known else "")) if c in row else "–"
            for c in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def stages(result: dict[str, Any]) -> list[str]:
    few, more = result["measured_steps"]
    lines = [
        "### CPU-seconds of each stage, one core",
        "",
        f"From runs of {few} and {more} steps, one run each; totals are extrapolated. "
        f"Machine: {result['machine']}, {result['precision']}, one thread.",
        "",
        "| stage | a step | before the first step | steps | in all, extrapolated |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["stages"].items():
        lines.append(
            f"| {name} | {row['step']:.3f} | {row['before']:.0f} | {row['steps']} | {row['total']:.0f} |"
        )
    return [*lines, ""]


def shipped(name: str, result: dict[str, Any]) -> list[str]:
    facts = result["facts"]
    galleries = ", ".join(f"{key} {size:,}" for key, size in facts["galleries"].items())
    lines = [
        f"### {name}",
        "",
        f"`dqecir evaluate`, split {facts['split']}, {facts['queries']:,} questions, galleries: {galleries}, "
        f"seed {facts['seed']}; one model. The rows without training use its trained backbone as it is.",
        "",
        "| ranked by | " + " | ".join(METRICS) + " | mAP@10 seen | unseen |",
        "|---|" + "---|" * (len(METRICS) + 2),
    ]
    for row_name, row in result["rows"].items():
        cells = [cell(row, key) for key in (*METRICS, "seen/mAP@10", "unseen/mAP@10")]
        lines.append(f"| {row_name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def summary(results: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for result in results:
        lines += [
            f"**{result['name'].capitalize()}**, {result['queries']:,} questions, {result['seeds']} seeds, "
            "percent, equal counted operations:",
            "",
            "| ranked by | R@10 | mAP@10 |",
            "|---|---|---|",
        ]
        for name, row in result["trained"].items():
            lines.append(f"| {name} | {cell(row['spread'], 'R@10')} | {cell(row['spread'], 'mAP@10')} |")
        for name, row in result["fixed"].items():
            lines.append(f"| *{name}* | {cell(row, 'R@10')} | {cell(row, 'mAP@10')} |")
        lines.append("")
    return lines


def put_between_marks(path: Path, lines: list[str]) -> None:
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    write_text(path, f"{before}{START}\n\n" + "\n".join(lines) + f"{END}{after}")


def main() -> None:
    work = Path(sys.argv[1])
    read = {path.stem: json.loads(path.read_text()) for path in sorted(work.glob("*.json"))}
    results = [read[name] for name in ("photos", "garments") if name in read]
    lines = [
        "# Results",
        "",
        "Written by `benchmarks/write_results.py` from the JSON of the other scripts in `benchmarks/`; no "
        "figure here is typed. All in percent unless said. Published figures of other papers are on other "
        "data and backbones and are not here. Not measured: anything on an accelerator, anything with public "
        "BLIP-2 weights, FashionIQ, CIRR and CIRCO (their images are not at hand).",
        "",
    ]
    for result in results:
        lines += comparison(result)
    if "backbone" in read:
        lines += backbone(read["backbone"])
    if "stages" in read:
        lines += stages(read["stages"])
    evaluated = {
        name.removeprefix("shipped-"): value for name, value in read.items() if name.startswith("shipped-")
    }
    if evaluated:
        lines += ["## The shipped model", ""]
        for name, value in evaluated.items():
            lines += shipped(name, value)
    write_text(ROOT / "docs" / "results.md", "\n".join(lines).rstrip() + "\n")
    put_between_marks(ROOT / "README.md", summary(results))


if __name__ == "__main__":
    main()
