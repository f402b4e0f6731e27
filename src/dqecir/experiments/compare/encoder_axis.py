"""Compare methods with several encoders, and find out how much encoder and method matter."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dqecir.errors import DataError
from dqecir.experiments.compare.context import start_of
from dqecir.experiments.compare.plan import ComparisonRecipe, read_comparison, slug, stages
from dqecir.experiments.compare.results_page import spread
from dqecir.experiments.compare.runner import run_comparison
from dqecir.io.files import write_json, write_text
from dqecir.io.markdown import table
from dqecir.io.progress import console
from dqecir.model.composed_model import ComposedModel

METRIC = "mAP@10"

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""Encoder -> method -> the metric of each seed, in percent."""


def compare_encoders(
    recipe_file: Path,
    train: Path,
    out: Path,
    encoders: Sequence[str],
    *,
    evaluation: Path | None = None,
    processes: int | None = None,
) -> dict[str, Any]:
    """Run or resume a comparison with each of ``encoders``; return the contents of ``OUT/encoders.json``.

    ``out`` gets a folder for each encoder, with the contestants and baselines that fit it; pairs that do not
    fit are listed with the reason. The other arguments are those of :func:`compare`. Raises
    :class:`DataError` if nothing fits an encoder, or if two encoders have the same name.
    """
    recipe, folder = read_comparison(recipe_file), recipe_file.resolve().parent
    names = {slug(name): name for name in encoders}
    if len(names) < len(encoders):
        raise DataError("two encoders have the same name: name each once")
    plans: dict[str, ComparisonRecipe] = {}
    refused: list[dict[str, str]] = []
    for place, name in names.items():
        plans[place], own = fitting(recipe, folder, start_of(recipe, name), name)
        refused += own
    values: dict[str, dict[str, list[float]]] = {}
    for place, name in names.items():
        console.print(f"encoder {name}")
        result = run_comparison(
            plans[place], folder, train, out / place, evaluation=evaluation, model=name, processes=processes
        )
        values[name] = _values(result)
    found = {
        "encoders": list(names.values()),
        "metric": METRIC,
        "values": values,
        "refused": refused,
        "explained": explained(values),
    }
    write_json(out / "encoders.json", found)
    write_text(out / "encoders.md", "\n".join(page(found)) + "\n")
    return found


def fitting(
    recipe: ComparisonRecipe, folder: Path, model: ComposedModel, name: str
) -> tuple[ComparisonRecipe, list[dict[str, str]]]:
    """Return the comparison with only the contestants and baselines that fit the encoder of ``model``.

    The second result has a record of each that does not fit: ``encoder``, ``method``, ``reason``. ``folder``
    is that of the comparison's recipe; ``name`` is the encoder's, for the records. Raises :class:`DataError`
    if no contestant fits.
    """
    refused: list[dict[str, str]] = []

    def fits(title: str, methods: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
        try:
            for method, options in methods:
                model.with_method(method, options)
        except DataError as error:
            refused.append({"encoder": name, "method": title, "reason": str(error)})
            return False
        return True

    contestants = tuple(
        one
        for one in recipe.contestants
        if fits(one.title, [(stage.method, stage.options) for stage in stages(recipe, one, folder)])
    )
    baselines = tuple(row for row in recipe.baselines if fits(row.name, [(row.method, row.options)]))
    if not contestants:
        raise DataError(f"no contestant runs over the encoder {name}: {refused[0]['reason']}")
    titles = [one.title for one in contestants]
    reference = recipe.reference if recipe.reference in titles else titles[0]
    own = {"contestants": contestants, "baselines": baselines, "reference": reference}
    return recipe.model_copy(update=own), refused


def _values(result: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return row -> the metric of each seed at the first budget, with the rows that are not trained."""
    trained = {
        title: [run["metrics"][METRIC] for run in next(iter(row["budgets"].values()))["runs"]]
        for title, row in result["contestants"].items()
    }
    fixed = {
        name: [metrics[METRIC]] for name, metrics in result["fixed"].items() if not name.startswith("oracle")
    }
    return trained | fixed


def explained(values: Values) -> dict[str, float]:
    """Return the shares of variance (0 to 1) due to the encoder, the method, their interaction, and the seed.

    It is a two-way analysis of variance over the methods that have the same number of seeds (at least two)
    for every encoder. Empty if fewer than two methods or encoders are left, or if nothing varies.
    """
    encoders = list(values)
    shared = [
        method
        for method in values[encoders[0]]
        if all(method in values[encoder] for encoder in encoders)
        and len({len(values[encoder][method]) for encoder in encoders}) == 1
        and len(values[encoders[0]][method]) > 1
    ]
    counts = {len(values[encoders[0]][method]) for method in shared}
    if len(encoders) < 2 or len(shared) < 2 or len(counts) > 1:
        return {}
    seeds = counts.pop()
    cells = {(e, m): statistics.fmean(values[e][m]) for e in encoders for m in shared}
    everything = [value for e in encoders for m in shared for value in values[e][m]]
    mean = statistics.fmean(everything)
    total = sum((value - mean) ** 2 for value in everything)
    if total == 0:
        return {}
    by_encoder = [statistics.fmean(cells[e, m] for m in shared) for e in encoders]
    by_method = [statistics.fmean(cells[e, m] for e in encoders) for m in shared]
    encoder = seeds * len(shared) * sum((value - mean) ** 2 for value in by_encoder)
    method = seeds * len(encoders) * sum((value - mean) ** 2 for value in by_method)
    between = seeds * sum((value - mean) ** 2 for value in cells.values())
    return {
        "encoder": encoder / total,
        "method": method / total,
        "encoder x method": max(0.0, between - encoder - method) / total,
        "seed": max(0.0, total - between) / total,
    }


def page(found: Mapping[str, Any]) -> list[str]:
    """Return lines of Markdown: the table of methods and encoders, its explanation, and refused pairs.

    ``found`` is the result of :func:`compare_encoders`.
    """
    encoders, values = found["encoders"], found["values"]
    methods = list(dict.fromkeys(method for own in values.values() for method in own))
    rows = [
        [method, *(spread(values[e][method]) if method in values[e] else "–" for e in encoders)]
        for method in methods
    ]
    lines = [f"{found['metric']}, percent", "", *table(["method", *encoders], rows), ""]
    if found["explained"]:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found["explained"].items())
        lines += [
            f"Variance of {found['metric']} over the methods that run over every encoder: {shares}.",
            "",
        ]
    if found["refused"]:
        refused = [[one["encoder"], one["method"], one["reason"]] for one in found["refused"]]
        lines += ["Pairs that do not fit:", "", *table(["encoder", "method", "why"], refused), ""]
    return lines
