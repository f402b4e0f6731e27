"""Write docs/results.md, docs/results-small.md and the table of the README from measurements.

    python -m benchmarks.write_results WORK

Reads the results of `dqecir compare` in the folders of WORK that PAGES names, WORK/encoders-photos,
WORK/backbone.json and WORK/stages.json of the scripts of those names, and benchmarks/published_results.yaml.
Each is written as a part of its page; what WORK does not have is not changed. No figure in a written part is
typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from benchmarks.pages import write_part

from dqecir.experiments.compare.encoder_axis import page as encoders_page
from dqecir.experiments.compare.plan import slug
from dqecir.experiments.compare.results_page import BUDGET_NAMES, markdown, result_budgets, spread
from dqecir.io.files import write_bytes

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
PICTURE_NAMES = {"map": "mAP@10 of every row", "confusion": "mAP@10 against confusion"}
METRICS = ("R@1", "R@10", "R@50", "mAP@10")
SHORT = ("R@10", "mAP@10")
PAGES = {
    "results.md": ("pretrained-photos", "pretrained-products"),
    "results-small.md": ("photos", "scenes", "garments"),
}
PUBLISHED_NAMES = {"fashioniq": "FashionIQ", "cirr": "CIRR", "circo": "CIRCO"}


def cell(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "–"
    if isinstance(value, dict):
        return f"{value['mean']:.1f} ± {value['sd']:.1f}"
    return f"{value:.1f}"


def published(rows: list[dict[str, Any]]) -> list[str]:
    """Return tables of published numbers, one for each benchmark."""
    circo = dict.fromkeys(row["method"] for row in rows if row["benchmark"] == "circo")
    if any(row["method"] == "ComposeAE" for row in rows):
        raise ValueError("there is a row of ComposeAE: take out the sentence that says there is none")
    lines = [
        "## Published numbers of these methods",
        "",
        "As their authors report them, on their own encoders, and on the galleries named. They are **not "
        "comparable** with the tables above, nor across galleries. *Arithmetic*: the categories agree with "
        "the printed average; *headline*: that, and the mean of both recalls was seen on a leaderboard; "
        "*unchecked*: taken from a summary of the papers. There is no row of ComposeAE, whose code "
        "searches FashionIQ in one gallery of all three categories, as no row below does; and of CIRCO only "
        f"rows of {' and '.join(circo)}.",
        "",
    ]
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == benchmark]
        metrics = list(dict.fromkeys(name for row in own for name in row["metrics"]))
        lines += [
            f"### {PUBLISHED_NAMES[benchmark]}",
            "",
            "| method | " + " | ".join(metrics) + " | split, gallery, reference | source | checked |",
            "|---|" + "---|" * (len(metrics) + 3),
        ]
        for row in own:
            name = f"{row['method']} ({row['variant']})" if row.get("variant") else row["method"]
            cells = [f"{row['metrics'][key]:.2f}" if key in row["metrics"] else "–" for key in metrics]
            masked = {True: "taken out", False: "stays", None: "unknown"}[row.get("reference_masked")]
            where = f"{row['split']}, {row.get('gallery') or 'whole'}, {masked}"
            source = row["source"] + (f"; {row['note']}" if row.get("note") else "")
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {where} | {source} | {row['checked']} |")
        lines.append("")
    return lines


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


def summary(results: list[dict[str, Any]]) -> list[str]:
    """Return one table of all comparisons at the last budget, ordered by the first of them."""
    columns = [summary_column(result) for result in results]
    names = sorted(
        {name for column in columns for name in column},
        key=lambda name: [-column.get(name, {"mAP@10": (0.0, "")})["mAP@10"][0] for column in columns],
    )
    what = "; ".join(
        f"{result['name']}: {result['questions']:,} questions, {len(result['seeds'])} seeds"
        for result in results
    )
    lines = [
        "Each cell is R@10 / mAP@10 in percent, mean ± standard deviation over seeds, at "
        f"{BUDGET_NAMES[result_budgets(results[0])[-1]]} ({what}). Rows in italics are not trained.",
        "",
        "| | " + " | ".join(result["name"] for result in results) + " |",
        "|---|" + "---|" * len(results),
    ]
    for name in names:
        cells = [
            f"{column[name]['R@10'][1]} / {column[name]['mAP@10'][1]}" if name in column else "–"
            for column in columns
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def summary_column(result: dict[str, Any]) -> dict[str, dict[str, tuple[float, str]]]:
    """Return row -> metric -> (mean, as text) of one comparison at its last budget."""
    budget = result_budgets(result)[-1]
    column = {}
    for title, row in result["contestants"].items():
        runs = row["budgets"][budget]["runs"]
        values = {key: [run["metrics"][key] for run in runs] for key in SHORT}
        column[title] = {key: (mean(found), spread(found)) for key, found in values.items()}
    for name, row in result["fixed"].items():
        if not name.startswith("oracle"):
            column[f"*{name}*"] = {key: (row[key], f"{row[key]:.1f}") for key in SHORT}
    return column


def comparison(folder: Path, result: dict[str, Any]) -> list[str]:
    """Return the section on a comparison, whose pictures are copied from ``folder`` to the documents."""
    lines = markdown(result)
    for name in ("map", "confusion"):
        picture = f"{slug(result['name'])}-{name}.png"
        write_bytes(PICTURES / picture, (folder / f"{name}.png").read_bytes())
        lines += [f"![{result['name']}: {PICTURE_NAMES[name]}](pictures/{picture})", ""]
    return lines


def over_encoders(folder: Path) -> list[str]:
    """Return the section on a comparison over several encoders, whose results are in ``folder``."""
    found = read(folder / "encoders.json")
    own = [read(folder / slug(name) / "results.json") for name in found["encoders"]]
    first, seconds = own[0], [sum(result["cpu_seconds"].values()) for result in own]
    cost = ", ".join(f"{name} {spent:,.0f}" for name, spent in zip(found["encoders"], seconds, strict=True))
    return [
        "## Photos over three encoders",
        "",
        f"`recipes/compare/{folder.name}.yaml`: {first['questions']:,} questions; {first['steps']} steps of "
        f"{first['batch_size']}; mean ± sample standard deviation over seeds "
        f"{', '.join(map(str, first['seeds']))}; {len(first_search(first))} trials of the learning rate "
        "for each method on dev. The towers of Lite2 and DINOv2-S are frozen; their Q-Formers and heads were "
        "trained on the photos' training split alone (`recipes/pretrain-lite2.yaml`, "
        "`recipes/pretrain-dinov2.yaml`). The tower of dqecir-small was fine-tuned, on "
        "products and drawn garments too. Machine: "
        f"{first['machine']}, {first['precision']}, one thread a run; CPU-s in all: {cost}.",
        "",
        *encoders_page(found),
    ]


def first_search(result: dict[str, Any]) -> dict[str, float]:
    """Return learning-rate factor -> metric on dev of the first contestant."""
    trials: dict[str, float] = next(iter(result["contestants"].values()))["search"]["dev"]
    return trials


def main() -> None:
    work, docs = Path(sys.argv[1]), ROOT / "docs"
    for page, names in PAGES.items():
        found = {name: read(work / name / "results.json") for name in names if (work / name).exists()}
        for name, result in found.items():
            write_part(docs / page, name, comparison(work / name, result))
        if page == "results.md" and len(found) == len(names):
            write_part(ROOT / "README.md", "results", summary(list(found.values())))
    if (work / "encoders-photos").exists():
        write_part(docs / "results.md", "encoders-photos", over_encoders(work / "encoders-photos"))
    for name, section in (("backbone", backbone), ("stages", stages)):
        if (work / f"{name}.json").exists():
            write_part(docs / "results-small.md", name, section(read(work / f"{name}.json")))
    rows = yaml.safe_load((ROOT / "benchmarks" / "published_results.yaml").read_text("utf-8"))
    write_part(docs / "results.md", "published", published(rows))


def read(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
