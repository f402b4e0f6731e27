"""Write docs/yardsticks.md from the results of `dqecir compare` with every method.

    python -m benchmarks.write_yardsticks WORK

Reads WORK/encoders-photos/dqecir-small and WORK/yardsticks-* (the output folders of `dqecir compare` with the
recipes of those names). Each is written as a part of the page; what WORK does not have is not changed. No
figure in a written part is typed by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from benchmarks.pages import write_part
from benchmarks.write_flagship import ROOT, Result, facts, read, values

from dqecir.experiments.compare.results_page import result_budgets, spread
from dqecir.io.markdown import table

PARTS = {
    "photos": "encoders-photos/dqecir-small",
    "products": "yardsticks-products",
    "garments": "yardsticks-garments",
    "scenes": "yardsticks-scenes",
}
KEYS = (
    "R@10",
    "mAP",
    "mAP@10",
    "nDCG@10",
    "hard negatives@10",
    "composition gap",
    "paraphrase spread",
    "both told apart",
)


def section(name: str, result: Result) -> list[str]:
    """Return the section on one catalogue: a row for each method, the highest mAP@10 first."""
    [budget] = result_budgets(result)
    titles = [*result["contestants"], *(row for row in result["fixed"] if not row.startswith("oracle"))]
    titles.sort(key=lambda title: -mean(values(result, budget, title, "mAP@10")))
    rows = []
    for title in titles:
        found = [values(result, budget, title, key) for key in KEYS]
        shown = title if title in result["contestants"] else f"*{title}*"
        rows.append([shown, *(spread(one) if one else "–" for one in found)])
    seconds = sum(result["cpu_seconds"].values())
    return [
        f"## {name.capitalize()}",
        "",
        f"{facts(result)} CPU-s in all: {seconds:,.0f}.",
        "",
        *table(["ranked by", *KEYS], rows),
    ]


def main() -> None:
    """Write the parts of the page."""
    work = Path(sys.argv[1])
    for name, folder in PARTS.items():
        for result in read(work, folder):
            write_part(ROOT / "docs" / "yardsticks.md", name, section(name, result))


if __name__ == "__main__":
    main()
