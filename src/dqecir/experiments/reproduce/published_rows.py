"""Compare measured numbers with published ones, if they were measured under the same conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from dqecir.errors import DataError
from dqecir.experiments.reproduce.measuring import MeasuredRow
from dqecir.experiments.reproduce.request import ASSETS
from dqecir.settings import Strict

TOLERANCE = 1.0
"""A mean counts as reproduced if it differs by at most this many points. The standard error of a recall over
2,000 questions of FashionIQ is 1.1 points, that of a mean of three categories 0.6, and runs differ by about
half a point."""
CONTRADICTION = 0.05
"""A printed mean that differs by more points from the mean of its categories is a misprint."""

NAMES: Mapping[str, str] = {
    "tirg": "TIRG",
    "cosmo": "CoSMo",
    "mgur": "MGUR",
    "clip4cir": "CLIP4Cir",
    "biblip4cir": "Bi-BLIP4CIR",
    "covr": "CoVR",
    "covr2": "CoVR-2",
    "sprc": "SPRC",
    "qure": "QuRe",
    "dqe": "DQE-CIR",
    "searle": "SEARLE",
    "lincir": "LinCIR",
}
"""Method of the package -> its name in publications."""


class PublishedRow(Strict):
    """One row in ``published_results.yaml``."""

    method: str
    variant: str
    benchmark: str
    split: str
    gallery: str
    reference_masked: bool | None
    metrics: dict[str, float]
    source: str
    checked: str
    note: str | None = None

    @property
    def zero_shot(self) -> bool:
        """Whether the model was not trained on the data set."""
        return "zero-shot" in self.variant

    @property
    def own(self) -> bool:
        """Whether the authors of the method report the row themselves."""
        return not self.variant.startswith("reported by")

    def expected(self) -> dict[str, float]:
        """Return the metrics under our names.

        A mean that contradicts its categories (:data:`CONTRADICTION`) is replaced by their mean.
        """
        values = {name.replace(" ", "/"): value for name, value in self.metrics.items()}
        for name, value in values.items():
            parts = [other for key, other in values.items() if key.endswith(f"/{name}")]
            if parts and abs(sum(parts) / len(parts) - value) > CONTRADICTION:
                values = {**values, name: round(sum(parts) / len(parts), 2)}
        return values


def published_rows() -> list[PublishedRow]:
    """Read the published rows of the package; raises :class:`DataError` if the file is damaged."""
    file = ASSETS / "published_results.yaml"
    try:
        rows = yaml.safe_load(file.read_text(encoding="utf-8"))
        return TypeAdapter(list[PublishedRow]).validate_python(rows)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise DataError(
            f"{file}, the list of published numbers, is damaged ({error}): install dqecir again"
        ) from None


@dataclass(frozen=True)
class Comparison:
    """A published row and the measured row that it is compared with."""

    published: PublishedRow
    obstacles: tuple[str, ...]
    """Reasons why the numbers cannot be compared; empty if they can."""
    differences: Mapping[str, tuple[float, float]]
    """Metric -> (published, measured) values; empty if there are obstacles."""

    @property
    def verdict(self) -> str:
        """One sentence: whether the numbers are within the tolerance, or why they cannot be compared."""
        if self.obstacles:
            return "not comparable: " + "; ".join(self.obstacles)
        means = {key: pair for key, pair in self.differences.items() if "/" not in key}
        outside = [key for key, (theirs, ours) in means.items() if abs(ours - theirs) > TOLERANCE]
        unstated = "" if self.published.reference_masked is not None else " (masking not stated there)"
        if outside:
            return f"not reproduced: {', '.join(outside)} off by more than {TOLERANCE} points{unstated}"
        return f"reproduced: {', '.join(means)} within {TOLERANCE} points{unstated}"

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return {
            "published": self.published.model_dump(),
            "verdict": self.verdict,
            "differences": {
                key: {"published": theirs, "measured": ours, "difference": ours - theirs}
                for key, (theirs, ours) in self.differences.items()
            },
        }


def compare(
    rows: Sequence[PublishedRow],
    row: MeasuredRow,
    method: str,
    data: str,
    *,
    trained_on: str | None,
    missing: int,
) -> list[Comparison]:
    """Compare the measured ``row`` with the rows that the authors of ``method`` published on ``data``.

    ``trained_on`` is the data set that the model was trained on, None if unknown; ``missing`` is the number
    of images that are missing from the measured gallery.
    """
    found = []
    for published in rows:
        if (published.method, published.benchmark) != (NAMES.get(method), data) or not published.own:
            continue
        obstacles = tuple(_obstacles(published, row, data, trained_on, missing))
        expected = {} if obstacles else published.expected()
        differences = {
            key: (value, row.metrics[key]) for key, value in expected.items() if key in row.metrics
        }
        found.append(Comparison(published, obstacles, differences))
    return found


def _obstacles(
    published: PublishedRow, row: MeasuredRow, data: str, trained_on: str | None, missing: int
) -> list[str]:
    conditions = row.conditions
    masked = conditions.reference == "masked"
    found = []
    if published.split != conditions.split:
        found.append(f"published on {published.split}, measured on {conditions.split}")
    if published.gallery != conditions.gallery:
        found.append(f"their gallery is {published.gallery}, ours {conditions.gallery}")
    if published.reference_masked is not None and published.reference_masked != masked:
        found.append(f"their reference is {'' if published.reference_masked else 'not '}masked, unlike ours")
    if not published.zero_shot and trained_on != data:
        found.append(f"theirs is trained on {data}, ours on {trained_on or 'other data'}")
    if published.zero_shot and trained_on == data:
        found.append(f"theirs is zero-shot, ours trained on {data}")
    if missing:
        found.append(f"{missing:,} images are missing here")
    return found
