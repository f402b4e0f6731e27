"""Write docs/losses.md from the results of `dqecir compare` on losses, batches and wrong labels.

    python -m benchmarks.write_losses WORK

Reads WORK/batches-*, WORK/losses-* and WORK/shuffled-* (the output folders of `dqecir compare` with the
recipes of those names). Each is written as a part of the page; what WORK does not have is not changed. No
figure in a written part is typed by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from benchmarks.pages import write_part
from benchmarks.write_flagship import ROOT, Result, difference, facts, read, values

from dqecir.experiments.compare.results_page import result_budgets, spread
from dqecir.io.markdown import table

KEYS = ("R@10", "mAP@10", "R-precision")
SHUFFLED = (0, 20, 50, 80)
BATCHES = (
    "Every row makes as many counted operations as the reference, so a smaller batch gets more steps, and "
    "more negatives cost steps. *Random* and *mid-zone* negatives are those of a pair loss; each refresh of "
    "mid-zone negatives scores all candidates, which also costs steps."
)
LABELS = (
    "A share of the training triplets gets the target of another triplet. Learning rates are those of the "
    "recipes. Columns are the share of wrong targets; the last is the share of mAP@10 that is left."
)


def rows(result: Result) -> list[str]:
    """Return a table with a row for each contestant."""
    budget = result_budgets(result)[0]
    cells = []
    for title, row in result["contestants"].items():
        runs = row["budgets"][budget]["runs"]
        shares = [100 * run["false_negatives"] for run in runs if run["false_negatives"] is not None]
        cells.append(
            [
                title,
                *(spread(values(result, budget, title, key)) for key in KEYS),
                difference(result, budget, title, "mAP@10"),
                f"{mean(shares):.2f} %" if shares else "–",
                " + ".join(str(steps) for steps in row["budgets"][budget]["steps"]),
                spread([run["cpu_seconds"] for run in runs]),
            ]
        )
    heads = ["", *KEYS, "difference in mAP@10", "right answers among negatives", "steps", "CPU-s"]
    return table(heads, cells)


def leaders(result: Result) -> str:
    """Return a sentence that names the best row, and the best row with a pair loss."""
    budget = result_budgets(result)[0]
    titles = sorted(result["contestants"], key=lambda title: -mean(values(result, budget, title, "mAP@10")))
    pairs = [title for title in titles if "negative" in title]
    return f"Highest mAP@10: {titles[0]}; among the rows with a pair loss: {pairs[0]}."


def degradation(result: Result) -> list[str]:
    """Return a table with a row for each method and a column for each share of wrong targets."""
    budget = result_budgets(result)[0]
    methods = [title for title in result["contestants"] if not title.endswith("shuffled")]
    cells = []
    for method in methods:
        titles = [f"{method}, {share}% shuffled" if share else method for share in SHUFFLED]
        found = [values(result, budget, title, "mAP@10") for title in titles]
        left = 100 * mean(found[-1]) / mean(found[0])
        cells.append([method, *(spread(one) for one in found), f"{left:.0f} %"])
    return table(["mAP@10", *(f"{share} %" for share in SHUFFLED), "left"], cells)


def batches(result: Result) -> list[str]:
    """Return the section on batches and numbers of negatives."""
    return [f"## {heading(result)}", "", f"{BATCHES} {facts(result)}", "", *rows(result), "", leaders(result)]


def losses(result: Result) -> list[str]:
    """Return the section on other losses and samplers."""
    return [f"## {heading(result)}", "", facts(result), "", *rows(result)]


def shuffled(result: Result) -> list[str]:
    """Return the section on wrong labels."""
    return [f"## {heading(result)}", "", f"{LABELS} {facts(result)}", "", *degradation(result)]


def heading(result: Result) -> str:
    """Return the name of a comparison with a capital."""
    return str(result["name"]).capitalize()


def main() -> None:
    """Write the parts of the page."""
    work = Path(sys.argv[1])
    for kind, section in (("batches", batches), ("losses", losses), ("shuffled", shuffled)):
        for folder in sorted(work.glob(f"{kind}-*")):
            [result] = read(work, folder.name)
            write_part(ROOT / "docs" / "losses.md", folder.name, section(result))


if __name__ == "__main__":
    main()
