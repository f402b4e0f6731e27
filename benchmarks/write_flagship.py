"""Write docs/flagship.md and docs/ablations.md from the results of `dqecir compare`.

    python -m benchmarks.write_flagship WORK

Reads WORK/flagship-*, WORK/ambiguous-* and WORK/ablation-* (the output folders of `dqecir compare` with the
recipes of those names), WORK/limits-*.json of benchmarks/limits.py, WORK/fresh-*.json of
benchmarks/fresh_wordings.py and WORK/asked-*.json of benchmarks/asked_first.py, if they exist. No figure in
the written documents is typed by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dqecir.experiments.compare.results_page import BUDGET_NAMES, result_budgets, spread
from dqecir.io.files import write_text

ROOT = Path(__file__).parent.parent
FLAGSHIP = "DQE with attribute values"
METRICS = ("R@1", "R@10", "mAP@10", "R-precision", "both told apart")
BACKBONES = (
    "All methods start from a small backbone that was trained from scratch, without public weights: "
    "`recipes/pretrain-small.yaml` for photos and garments, `recipes/pretrain-scenes.yaml` for scenes "
    "([sizes and accuracy](results-small.md#the-backbone-from-scratch)). A stronger backbone may give "
    "another order; [results.md](results.md) compares fewer methods on the pretrained backbone of the "
    "shipped model."
)
"""The head of both pages says which backbones their figures stand on."""
NOT_RIVALS = ("oracle", "exact, perfect parse")
"""Rows that use the true attributes or the true parse: upper bounds, not methods."""

ABLATED = {
    "ablation-dqe": "DQE-CIR, our reading, on photos",
    "ablation-values-photos": "DQE with attribute values, on photos",
    "ablation-values-scenes": "DQE with attribute values, on scenes",
}
"""The heading of a comparison on docs/ablations.md. Default: its name."""

Result = dict[str, Any]


def read(work: Path, kind: str) -> list[Result]:
    paths = sorted(work.glob(f"{kind}*/results.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def values(result: Result, budget: str, title: str, key: str) -> list[float]:
    """Return a metric of every seed of a contestant; one value for a row without training."""
    if title in result["contestants"]:
        runs = result["contestants"][title]["budgets"][budget]["runs"]
        return [run["metrics"][key] for run in runs if key in run["metrics"]]
    metrics = result["fixed"][title]
    return [metrics[key]] if key in metrics else []


def rivals(result: Result) -> list[str]:
    """Return all other methods: neither the flagship's own variants nor the bounds."""
    fixed = [name for name in result["fixed"] if not any(part in name for part in NOT_RIVALS)]
    return [title for title in result["contestants"] if not title.startswith(FLAGSHIP)] + fixed


def lead(result: Result, budget: str, key: str) -> str:
    """Return the flagship's mean and least lead over the best rival in a metric, and that rival."""
    own = values(result, budget, FLAGSHIP, key)
    means = {title: mean(found) for title in rivals(result) if (found := values(result, budget, title, key))}
    best = max(means, key=lambda title: means[title])
    theirs = values(result, budget, best, key)
    pairs = [
        a - b for a, b in zip(own, theirs if len(theirs) == len(own) else theirs * len(own), strict=True)
    ]
    return f"{key} {mean(pairs):+.1f} (least {min(pairs):+.1f}) over {best}"


def confusion_line(result: Result, budget: str) -> str:
    own = 100 - mean(values(result, budget, FLAGSHIP, "both told apart"))
    shares = {
        title: 100 - mean(found)
        for title in rivals(result)
        if (found := values(result, budget, title, "both told apart"))
    }
    best = min(shares, key=lambda title: shares[title])
    return f"Confused pairs: {own:.1f} % against {shares[best]:.1f} % of {best}, the least confused rival."


def facts(result: Result) -> str:
    return (
        f"{result['questions']:,} questions, {result['right_answers']:.1f} right answers each on average; "
        f"“{result['reference']}” trains for {result['steps']} steps with batches of "
        f"{result['batch_size']}; seeds {', '.join(map(str, result['seeds']))}; {result['machine']}, "
        f"{result['precision']}, one thread a run."
    )


def main_table(result: Result, budget: str) -> list[str]:
    titles = [*result["contestants"], *result["fixed"]]
    titles.sort(key=lambda title: -mean(values(result, budget, title, "mAP@10")))
    lines = ["| ranked by | " + " | ".join(METRICS) + " |", "|---|" + "---|" * len(METRICS)]
    for title in titles:
        found = [values(result, budget, title, key) for key in METRICS]
        cells = [spread(numbers) if numbers else "–" for numbers in found]
        name = title if title in result["contestants"] else f"*{title}*"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def rivalry(result: Result, heading: str) -> list[str]:
    lines = [heading, "", facts(result), ""]
    for budget in result_budgets(result):
        keys = ("R@10", "mAP@10", "R-precision")
        lines += [
            f"{BUDGET_NAMES[budget].capitalize()}:",
            "",
            *main_table(result, budget),
            "",
            "Lead: "
            + "; ".join(lead(result, budget, key) for key in keys)
            + ". "
            + confusion_line(result, budget),
            "",
        ]
    return lines


def difference(result: Result, budget: str, title: str, key: str) -> str:
    """Return the mean difference to the reference row, paired by seed, with its standard deviation."""
    own = values(result, budget, title, key)
    base = values(result, budget, result["reference"], key)
    if len(own) != len(base) or not own:
        return "–"
    pairs = [a - b for a, b in zip(own, base, strict=True)]
    return f"{mean(pairs):+.1f} ± {stdev(pairs):.1f}" if len(pairs) > 1 else f"{mean(pairs):+.1f}"


def ablation(result: Result) -> list[str]:
    budget = result_budgets(result)[0]
    runs = result["contestants"][result["reference"]]["budgets"][budget]["runs"]
    asked = sorted(key for key in runs[0]["metrics"] if key.startswith("asks of") and key.endswith("/R@10"))
    keys = ["R@10", "mAP@10", "R-precision", *asked]
    heads = [key.replace("/R@10", ", R@10") for key in keys]
    lines = [
        f"## {ABLATED.get(result['name'], result['name'])}",
        "",
        facts(result)
        + f" Differences to “{result['reference']}” are paired by seed, ± their standard deviation.",
        "",
        "| | " + " | ".join(heads) + " | difference in R@10 | in mAP@10 | right answers among negatives |",
        "|---|" + "---|" * (len(heads) + 3),
    ]
    for title, row in result["contestants"].items():
        cells = [spread(values(result, budget, title, key)) for key in keys]
        cells += [difference(result, budget, title, key) for key in ("R@10", "mAP@10")]
        shares = [run["false_negatives"] for run in row["budgets"][budget]["runs"]]
        known = [100 * share for share in shares if share is not None]
        cells.append(f"{mean(known):.2f} %" if known else "–")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return [*lines, "", *permuted(result, budget, asked), ""]


def permuted(result: Result, budget: str, asked: list[str]) -> list[str]:
    """Return the loss of the reference row if every question gets the attribute weights of another."""
    title = result["reference"]
    keys = [
        key for key in ("R@10", "mAP@10", *asked) if values(result, budget, title, f"weights permuted/{key}")
    ]
    if not keys:
        return []
    parts = []
    for key in keys:
        own = values(result, budget, title, key)
        other = values(result, budget, title, f"weights permuted/{key}")
        pairs = [b - a for a, b in zip(own, other, strict=True)]
        parts.append(f"{key.replace('/R@10', ', R@10')} {spread(pairs)}")
    return [
        f"“{title}” with the attribute weights of another question, drawn at random: "
        + "; ".join(parts)
        + "."
    ]


def limits(work: Path) -> list[str]:
    lines: list[str] = []
    for path in sorted(work.glob("limits-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines += [
            "## What the heads allow",
            "",
            f"{found['name'].capitalize()}, dev, {found['questions']:,} questions over {found['images']} "
            "images: attribute heads with a perfect parse of the text, ranked in five ways "
            "(`benchmarks/limits.py`). Dev is easier than val, because its galleries are smaller.",
            "",
            "| ranked | R@10 | mAP@10 | R-precision |",
            "|---|---|---|---|",
        ]
        for name, row in found["rows"].items():
            lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
        lines.append("")
    return lines


def fresh(work: Path) -> list[str]:
    paths = sorted(work.glob("fresh-*.json"))
    if not paths:
        return []
    lines = [
        "## In words that nobody had seen",
        "",
        "The settings of the text reader were chosen on the questions above, and the authors of its rules "
        "could read their phrases. Here, new questions that request one value for each column are asked "
        "twice: in the catalogue's wording, and in phrases of another author, who knew only the names of "
        "columns and values, not the parser, the vocabularies or the questions. The rules were improved "
        "after the first set of phrases had been read. The second set was written for this measurement, "
        "and the authors of the rules never saw it. Measured by `benchmarks/fresh_wordings.py`.",
        "",
    ]
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        read_rightly = found["parsed exactly"]
        lines += [
            f"### {found['name'].capitalize()}, {found['phrases']} set",
            "",
            f"{found['questions']:,} questions, seed {found['seed']}, {found['images']:,} images. The rules "
            f"read exactly the requested values from {read_rightly['usual']:.1f} % of the usual texts and "
            f"{read_rightly['fresh']:.1f} % of the fresh ones.",
            "",
            "| ranked by | usual: R@10 | mAP@10 | R-precision | fresh: R@10 | mAP@10 | R-precision |",
            "|---|" + "---|" * 6,
        ]
        for title, row in found["rows"].items():
            cells = [
                spread([metrics[key] for metrics in row[words]])
                for words in ("usual", "fresh")
                for key in ("R@10", "mAP@10", "R-precision")
            ]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        examples = "; ".join(f"“{text}”" for text in found["examples"][:5])
        lines += ["", f"The first fresh texts: {examples}.", ""]
    return lines


def asked_first(work: Path) -> list[str]:
    paths = sorted(work.glob("asked-*.json"))
    if not paths:
        return []
    lines = [
        "## Requested values first",
        "",
        "A question of a benchmark has a right answer. A shop may have no item that shows the requested "
        "values and otherwise equals the reference. Therefore `dqecir search` and the service multiply the "
        "weights of requested columns (`dqecir.search.steering.REQUEST_BOOST`); the other tables do not. "
        "This is the effect on the shipped model, measured by `benchmarks/asked_first.py`. *As requested*: "
        "the share of the first ten results that show all requested values, by the table.",
        "",
    ]
    for path in paths:
        found = json.loads(path.read_text(encoding="utf-8"))
        keys = list(next(iter(found["rows"].values())))
        lines += [
            f"{found['name'].capitalize()}, val, {found['questions']:,} questions of seed {found['seed']} "
            f"over {found['images']:,} images; searches use {found['used']:g}:",
            "",
            "| weight of requested columns | " + " | ".join(keys[:-1]) + " | as requested |",
            "|---|" + "---|" * len(keys),
        ]
        for factor, row in found["rows"].items():
            lines.append(f"| {factor} times | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
        lines.append("")
    return lines


def main() -> None:
    work = Path(sys.argv[1])
    lines = [
        "# DQE with attribute values and its rivals",
        "",
        "How DQE with attribute values compares with its strongest rivals, over several seeds. "
        "[method.md](method.md) describes the method and explains these results.",
        "",
        f"{BACKBONES} Only [requested values first](#requested-values-first) measures the shipped model.",
        "",
        "Figures are in percent, mean ± sample standard deviation over seeds. Rows in italics need no "
        "training. Rows with *perfect parse* and *oracle* use the true requests or attributes, which no "
        "method knows: they are upper bounds, not rivals. A lead is the difference to the best rival in "
        "that metric; *least* is the smallest lead of a seed. *Both told apart* is about pairs of questions "
        "about one reference that differ in one value: the share of pairs in which both questions rank their "
        "own target above the other's. The other pairs are *confused*. "
        "[protocols.md](protocols.md#metrics-of-a-catalogue) defines the other metrics. "
        "`benchmarks/write_flagship.py` writes this page from the results of "
        "`recipes/compare/flagship-*.yaml` and `recipes/compare/ambiguous-*.yaml`.",
        "",
    ]
    for result in read(work, "flagship"):
        lines += rivalry(result, f"## {result['name'].removeprefix('flagship-').capitalize()}")
    ambiguous = read(work, "ambiguous")
    if ambiguous:
        lines += [
            "## Heavy ambiguity",
            "",
            "The catalogues have few columns and each text changes one of them. A question then has many "
            "right answers, and in-batch contrast with batches of 256 treats many of them as negatives.",
            "",
        ]
        for result in ambiguous:
            lines += rivalry(result, f"### {result['name'].removeprefix('ambiguous-').capitalize()}")
    lines += fresh(work)
    lines += asked_first(work)
    lines += limits(work)
    write_text(ROOT / "docs" / "flagship.md", "\n".join(lines).rstrip() + "\n")
    lines = [
        "# Ablations",
        "",
        "What each part of a method is worth: one part is changed in each row. Figures are in percent, "
        "mean ± sample standard deviation over seeds, at equal steps and with the learning rates of the "
        "recipes. [method.md](method.md) describes the parts, "
        "[protocols.md](protocols.md#metrics-of-a-catalogue) the metrics. *Right answers among negatives* is "
        "the share of right answers among the candidates that training used as negatives. "
        "`benchmarks/write_flagship.py` writes this page from the results of "
        "`recipes/compare/ablation-*.yaml`.",
        "",
        BACKBONES,
        "",
    ]
    for result in read(work, "ablation"):
        lines += ablation(result)
    write_text(ROOT / "docs" / "ablations.md", "\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
