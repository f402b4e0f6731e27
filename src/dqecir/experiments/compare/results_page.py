"""Write the results of a comparison as Markdown, CSV and plots, all from its JSON."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqecir.io.files import write_text
from dqecir.io.markdown import table
from dqecir.io.plots import plotted
from dqecir.io.stopwatch import UNITS

MAIN = ("R@1", "R@5", "R@10", "R@50", "mAP@10", "R-precision")
SUBSET = ("R_sub@1", "R_sub@2", "R_sub@3")
BEYOND = ("mAP", "nDCG@10")
WORDINGS = ("seen/mAP@10", "unseen/mAP@10")
FAULTS = (
    "told apart",
    "both told apart",
    "other intent nearest",
    "R@10 text alone",
    "R@10 image alone",
    "hard negatives@10",
    "composition gap",
    "paraphrase spread",
)
BUDGET_NAMES = {"steps": "equal steps", "operations": "equal counted operations"}

_ROBUSTNESS = (
    " *Hard negatives@10*: share of the first ten that are wrong in what the text asks for and in nothing "
    "else. *Composition gap*: mAP@10 less that of the better half, the reference with an empty text or the "
    "text with an image that shows nothing in particular. *Paraphrase spread*: best less worst mAP@10 over "
    "several wordings of one question, mean over questions."
)

ResultRecord = Mapping[str, Any]


def write_report(result: ResultRecord, folder: Path) -> None:
    """Write ``results.md``, ``results.csv`` and the plots of a comparison into ``folder``."""
    write_text(folder / "results.md", "\n".join(markdown(result)) + "\n")
    write_text(folder / "results.csv", as_csv(result))
    _draw_ranking(result, folder / "map.png")
    if _has(result, "both told apart"):
        _draw_confusion(result, folder / "confusion.png")


def spread(values: Sequence[float]) -> str:
    """Return mean ± sample standard deviation with one decimal; for a single value, only that value."""
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def budget_means(result: ResultRecord) -> dict[str, dict[str, dict[str, float]]]:
    """Return title of a table -> row -> metric -> mean over seeds, with the rows that are not trained.

    There is one table for each budget, and the budget is in its title.
    """
    tables = {}
    for budget in result_budgets(result):
        rows = {
            title: {key: statistics.mean(run["metrics"][key] for run in runs) for key in _shared(runs)}
            for title, runs in _trained(result, budget)
        }
        name = f"{result['name']}, {BUDGET_NAMES[budget]}: mean of {len(result['seeds'])} seeds, percent"
        tables[name] = rows | dict(result["fixed"])
    return tables


def _shared(runs: Sequence[ResultRecord]) -> list[str]:
    """Return the names of the metrics that every run has."""
    return [key for key in runs[0]["metrics"] if all(key in run["metrics"] for run in runs)]


def markdown(result: ResultRecord) -> list[str]:
    """Return the comparison as lines of Markdown, with headings of the second and third level."""
    lines = [f"## {result['name'].capitalize()}", "", *_protocol(result), ""]
    for budget in result_budgets(result):
        lines += [f"### {BUDGET_NAMES[budget].capitalize()}", ""]
        lines += _ranking_table(result, budget)
        lines += _category_table(result, budget)
        lines += _asked_table(result, budget)
        lines += ["", *_fault_table(result, budget), "", *_attribute_table(result, budget), ""]
    parsing = [*_parsing_line(result), ""] if result["parsing"] else []
    return [*lines, *_rates_table(result), "", *parsing]


def result_budgets(result: ResultRecord) -> list[str]:
    """Return the budgets of a comparison, in order."""
    return list(next(iter(result["contestants"].values()))["budgets"])


def _protocol(result: ResultRecord) -> list[str]:
    galleries = ", ".join(f"{name} {size:,}" for name, size in result["galleries"].items())
    seconds = result[_spent(result)]
    operations = (
        f"Equal counted operations: those of {result['reference']} in that many steps, refreshes of "
        f"negatives included ({result['refreshes']} a run), steps fixed beforehand. "
        if "operations" in result_budgets(result)
        else ""
    )
    wordings = ", half of the questions in wordings that training never shows" if result["parsing"] else ""
    return [
        f"{result['questions']:,} questions ({result['right_answers']:.1f} right answers each on average"
        f"{wordings}); galleries: {galleries}; "
        f"{result['triplets']:,} training triplets over {result['training_images']:,} images. Mean ± sample "
        f"standard deviation over seeds {', '.join(map(str, result['seeds']))}; seeds vary the training, not "
        "the backbone, the triplets or the questions. All rows start from the same backbone and its stored "
        f"features. Equal steps: {result['steps']} steps of {result['batch_size']}, shared out between the "
        f"stages of a method that has several. {operations}"
        f"Learning rates: {len(next(iter(result['contestants'].values()))['search']['dev'])} "
        "trials a method on dev, at equal steps, one seed. "
        f"Machine: {result['machine']}, {result['precision']}, one thread a run; "
        f"{seconds['training']:.0f} {UNITS[_spent(result)]} of training and {seconds['search']:.0f} of "
        "search in all.",
    ]


def _spent(result: ResultRecord) -> str:
    """Return the key under which a comparison stores its seconds, such as ``cpu_seconds``."""
    return next(name for name in UNITS if name in result)


def _ranking_table(result: ResultRecord, budget: str) -> list[str]:
    metrics = [*MAIN, *(key for key in (*BEYOND, *SUBSET, *WORDINGS) if _has(result, key))]
    spent = _spent(result)
    rows = []
    for title, runs in _rows(result, budget):
        row = result["contestants"].get(title)
        last = ["–"] * 3
        if row is not None:
            steps = " + ".join(str(n) for n in row["budgets"][budget]["steps"])
            trained = " + ".join(f"{n:,}" for n in row["parameters"])
            last = [steps, spread([run[spent] for run in runs]), trained]
        rows.append([title, *_cells(runs, metrics), *last])
    heads = [key.replace("/mAP@10", " wording, mAP@10") for key in metrics]
    return table(["ranked by", *heads, "steps", UNITS[spent], "parameters trained"], rows)


def _category_table(result: ResultRecord, budget: str) -> list[str]:
    categories = result["galleries"]
    if len(categories) < 2:
        return []
    keys = [f"{category}/{metric}" for category in categories for metric in ("R@10", "mAP@10")]
    rows = [[title, *_cells(runs, keys)] for title, runs in _trained(result, budget)]
    return ["", "By category:", "", *table(["", *keys], rows)]


def _asked_table(result: ResultRecord, budget: str) -> list[str]:
    """Return a table of R@10 and mAP@10 by requested attribute, for the rows that have them."""
    rows = _rows(result, budget)
    asked = (key for _, runs in rows for key in _shared(runs) if key.startswith("asks of "))
    names = dict.fromkeys(key.split("/")[0] for key in asked)
    if not names:
        return []
    keys = [f"{name}/{metric}" for name in names for metric in ("R@10", "mAP@10")]
    known = {title: _cells(runs, keys) for title, runs in rows if set(keys) <= set(_shared(runs))}
    return [
        "",
        "By requested attribute (a question that requests several attributes counts for each; means over "
        "questions, not over galleries). Of the methods that train, this was measured for "
        f"{len(known.keys() & result['contestants'].keys())} of {len(result['contestants'])}.",
        "",
        *table(
            ["", *(key.removeprefix("asks of ").replace("_", " ").replace("/", ", ") for key in keys)],
            [[title, *cells] for title, cells in known.items()],
        ),
    ]


def _fault_table(result: ResultRecord, budget: str) -> list[str]:
    keys = [key for key in FAULTS if _has(result, key)]
    rows = []
    for title, runs in _rows(result, budget, keys):
        wrong = [run["false_negatives"] for run in runs if run.get("false_negatives") is not None]
        share = f"{statistics.mean(100 * part for part in wrong):.2f} %" if wrong else "–"
        rows.append([title, share, *_cells(runs, keys)])
    return [
        "The two faults, and shortcuts. *Right answers among negatives*: share of the candidates that a step "
        "took for negatives and that were right answers (relevance suppression, with mAP and R-precision "
        "above). *Told apart*: of two questions about one reference that differ in one value, the share that "
        "rank their own target above the other's (chance 50), and the share of pairs in which both do "
        f"({result['confusable']} pairs). *Other intent nearest*: queries whose nearest other query shares "
        "no right answer, among those for which one exists. *Alone*: targets in the first ten with the "
        "reference (text alone) or the text (image alone) of another query."
        + (_ROBUSTNESS if "composition gap" in keys else ""),
        "",
        *table(["ranked by", "right answers among negatives", *keys], rows),
    ]


def _attribute_table(result: ResultRecord, budget: str) -> list[str]:
    prefix = "told apart/"
    keys = sorted({key for run in _runs(result) for key in run["metrics"] if key.startswith(prefix)})
    if not keys:
        return []
    rows = [[title, *_cells(runs, keys)] for title, runs in _rows(result, budget, keys)]
    return [
        "Told apart, by the attribute in which the two questions differ:",
        "",
        *table(["", *(key.removeprefix(prefix) for key in keys)], rows),
    ]


def _rates_table(result: ResultRecord) -> list[str]:
    rows = [
        [
            title,
            f"{row['learning_rate']:.1e}",
            ", ".join(f"×{factor}: {value:.1f}" for factor, value in row["search"]["dev"].items()),
            " + ".join(f"{value / 1e9:.1f} G" for value in row["step_operations"]),
            " + ".join(f"{value / 1e9:.0f} G" if value else "–" for value in row["refresh_operations"]),
        ]
        for title, row in result["contestants"].items()
    ]
    return [
        "Learning rates chosen on dev (mAP@10 of every factor of the recipe's rate; a run whose loss "
        "diverged counts as -1), and operations of a step. Trials are shorter than runs, which favours high "
        "rates:",
        "",
        *table(["", "rate chosen", "trials on dev", "operations of a step", "of a refresh"], rows),
    ]


def _parsing_line(result: ResultRecord) -> list[str]:
    shares = ", ".join(
        f"{result['parsing'][name]:.1f} % of {what}"
        for name, what in (("all", "all questions"), ("seen", "seen wordings"), ("unseen", "unseen wordings"))
        if name in result["parsing"]
    )
    columns = ", ".join(
        f"{key.removeprefix('recall/')} {value:.0f} %"
        for key, value in result["parsing"].items()
        if key.startswith("recall/")
    )
    return [
        f"The parser of predicted attributes reads the requests without any error in {shares}. Share of the "
        f"requests of each column that it reads: {columns}. The authors of its rules knew the unseen "
        "wordings, so the figures for these are too high."
    ]


def as_csv(result: ResultRecord) -> str:
    """Return CSV with one line for each run and metric: title, budget, seed, metric, value.

    Budget and seed are empty for baselines.
    """
    text = io.StringIO()
    spent = _spent(result)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["ranked by", "budget", "seed", "metric", "value"])
    for title, row in result["contestants"].items():
        for budget, share in row["budgets"].items():
            for run in share["runs"]:
                values = {
                    **run["metrics"],
                    spent: run[spent],
                    "false_negatives": run["false_negatives"],
                }
                for metric, value in values.items():
                    if value is not None:
                        writer.writerow([title, budget, run["seed"], metric, f"{value:.6g}"])
    for name, metrics in result["fixed"].items():
        for metric, value in metrics.items():
            writer.writerow([name, "", "", metric, f"{value:.6g}"])
    return text.getvalue()


def _draw_ranking(result: ResultRecord, path: Path) -> None:
    """Draw a plot of the mAP@10 of every row at every budget."""
    budgets = result_budgets(result)
    titles = [title for title, _ in reversed(_trained(result, budgets[-1]))]
    untrained = {
        name: metrics["mAP@10"]
        for name, metrics in sorted(result["fixed"].items(), key=lambda item: item[1]["mAP@10"])
        if not name.startswith("oracle")
    }
    names = [*untrained, *titles]
    with plotted(path, (8, 0.36 * len(names) + 1.5)) as [axis]:
        axis.barh([row + 0.4 for row in range(len(untrained))], list(untrained.values()), 0.5, color="silver")
        height = 0.8 / len(budgets)
        for place, budget in enumerate(budgets):
            own = dict(_trained(result, budget))
            runs = [_values(own[title], "mAP@10") for title in titles]
            axis.barh(
                [len(untrained) + row + (place + 0.5) * height for row in range(len(titles))],
                [statistics.mean(values) for values in runs],
                height,
                xerr=[statistics.stdev(values) if len(values) > 1 else 0 for values in runs],
                label=BUDGET_NAMES[budget],
            )
        axis.set_yticks([row + 0.4 for row in range(len(names))], names)
        axis.set_ylim(-0.2, len(names))
        axis.set_xlabel("mAP@10 over all right answers, percent (grey: without training)")
        axis.legend(loc="upper left", bbox_to_anchor=(0, 1.06), ncols=len(budgets), frameon=False)


def _draw_confusion(result: ResultRecord, path: Path) -> None:
    """Draw a plot of mAP@10 against semantic confusion."""
    budget = result_budgets(result)[-1]
    with plotted(path, (7, 5)) as [axis]:
        for title, runs in reversed(_trained(result, budget)):
            place = [statistics.mean(_values(runs, key)) for key in ("both told apart", "mAP@10")]
            axis.plot(*place, "o")
            axis.annotate(title, place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.set_xlabel("pairs of questions of which both are told apart, percent")
        axis.set_ylabel("mAP@10, percent")
        axis.set_title(f"{result['name']}, {BUDGET_NAMES[budget]}", fontsize=9)


def _trained(result: ResultRecord, budget: str) -> list[tuple[str, list[ResultRecord]]]:
    """Return (title, runs) of each contestant at a budget, the highest mAP@10 first."""
    rows = [(title, row["budgets"][budget]["runs"]) for title, row in result["contestants"].items()]
    return sorted(rows, key=lambda row: -statistics.mean(_values(row[1], "mAP@10")))


def _rows(
    result: ResultRecord, budget: str, keys: Sequence[str] = ()
) -> list[tuple[str, list[ResultRecord]]]:
    """Return (title, runs) of each contestant, then of rows that are not trained.

    With ``keys``, only the untrained rows that have one of these metrics are included.
    """
    fixed: list[tuple[str, list[ResultRecord]]] = [
        (f"*{name}*", [{"metrics": metrics}])
        for name, metrics in result["fixed"].items()
        if not keys or any(key in metrics for key in keys)
    ]
    return [*_trained(result, budget), *fixed]


def _values(runs: Sequence[ResultRecord], key: str) -> list[float]:
    """Return the values of a metric in the runs that have it."""
    return [run["metrics"][key] for run in runs if key in run["metrics"]]


def _runs(result: ResultRecord) -> list[Any]:
    return [
        run
        for row in result["contestants"].values()
        for share in row["budgets"].values()
        for run in share["runs"]
    ]


def _has(result: ResultRecord, key: str) -> bool:
    return all(key in run["metrics"] for run in _runs(result))


def _cells(runs: Sequence[ResultRecord], keys: Sequence[str]) -> list[str]:
    """Return the cells of a table's row: each metric's :func:`spread` over runs, or – without a value."""
    return [spread(values) if (values := _values(runs, key)) else "–" for key in keys]
