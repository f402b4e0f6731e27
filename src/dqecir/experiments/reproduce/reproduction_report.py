"""The report of a reproduction, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dqecir.evaluation.missing_images import FALLEN, LIST, Inventory
from dqecir.experiments.reproduce.measuring import MeasuredRow
from dqecir.experiments.reproduce.published_rows import TOLERANCE, Comparison
from dqecir.io.files import write_json, write_text
from dqecir.io.markdown import table


@dataclass(frozen=True)
class Report:
    """The results of a reproduction, and what they were measured with."""

    title: str
    facts: Mapping[str, Any]
    """What was measured: weights, recipe, run, fingerprints."""
    inventories: Sequence[Inventory]
    rows: Sequence[MeasuredRow]
    shown: Sequence[str]
    """Names of the metrics in the tables; the JSON has all metrics."""
    notes: Sequence[str] = ()
    comparisons: Sequence[Comparison] = ()
    submissions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Caption -> file name in the folder of the report."""

    def write(self, out: Path) -> None:
        """Write ``report.json`` and ``report.md`` into ``out``."""
        write_json(out / "report.json", self.as_dict())
        write_text(out / "report.md", "\n".join(self.markdown()) + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of ``report.json``: numbers of missing images and skipped questions."""
        return {
            "title": self.title,
            "facts": dict(self.facts),
            # The names of missing images and skipped questions stand in the lists beside it.
            "data": [
                {**asdict(one), "missing": len(one.missing), "fallen": len(one.fallen)}
                for one in self.inventories
            ],
            "rows": [asdict(row) for row in self.rows],
            "notes": list(self.notes),
            "tolerance": TOLERANCE,
            "comparisons": [one.as_dict() for one in self.comparisons],
            "submissions": {name: dict(facts) for name, facts in self.submissions.items()},
            "pictures": dict(self.pictures),
        }

    def lines(self) -> list[str]:
        """Return lines for a terminal: every row with the conditions of its measurement."""
        found = [self.title]
        for row in self.rows:
            values = "  ".join(
                f"{name} {row.metrics[name]:.2f}" for name in self.shown if name in row.metrics
            )
            found.append(f"{row.name}: {values}  [{row.conditions.text}; {row.chosen}]")
        for one in self.comparisons:
            found.append(f"{one.published.method}, {one.published.variant}: {one.verdict}")
        return [*found, *self.notes]

    def markdown(self) -> list[str]:
        """Return the report in Markdown."""
        lines = [f"# {self.title}", ""]
        lines += [f"- {name}: {value}" for name, value in self.facts.items()]
        counts = [
            [
                one.split,
                f"{one.images:,}",
                f"{len(one.missing):,}",
                f"{one.questions:,}",
                f"{len(one.fallen):,}",
            ]
            for one in self.inventories
        ]
        heads = ["split", "images", "missing", "questions", "fell away"]
        lines += ["", "## Data", "", *table(heads, counts)]
        lacking = [sentence for one in self.inventories if (sentence := one.sentence())]
        if lacking:
            lines += ["", *lacking, f"Images are named in `{LIST}`, questions in `{FALLEN}`."]
        lines += ["", "## Results", "", *self._table(), ""]
        lines += [f"{note}\n" for note in self.notes]
        lines += self._compared()
        if self.submissions:
            told = "Written here, read back and checked; the server scores them."
            lines += ["## Submissions", "", told, ""]
            lines += [
                f"- `{name}`: {facts['questions']:,} questions, {facts['answers']} answers each, "
                f"{facts['bytes']:,} bytes"
                for name, facts in self.submissions.items()
            ]
            lines += [""]
        lines += [f"![{caption}]({name})\n" for caption, name in self.pictures.items()]
        return lines

    def _table(self) -> list[str]:
        shown = [name for name in self.shown if any(name in row.metrics for row in self.rows)]
        rows = []
        for row in self.rows:
            values = [f"{row.metrics[name]:.2f}" if name in row.metrics else "–" for name in shown]
            made = row.conditions
            conditions = [made.split, made.gallery, made.reference, made.captions]
            rows.append([row.name, *values, *conditions, row.chosen])
        return table(["", *shown, "split", "gallery", "reference", "captions", "chosen"], rows)

    def _compared(self) -> list[str]:
        if not self.comparisons:
            return []
        lines = [
            "## Beside the published numbers",
            "",
            f"The best epoch, within {TOLERANCE} points of every published mean or not. A number is compared "
            "only where data set, split, gallery, masking and training agree.",
            "",
        ]
        for one in self.comparisons:
            row = one.published
            masking = {None: "not stated", True: "masked", False: "not masked"}[row.reference_masked]
            lines += [
                f"**{row.method}, {row.variant}** ({row.source}; {row.split}, gallery {row.gallery}, "
                f"reference {masking}; checked: {row.checked}). {one.verdict[0].upper()}{one.verdict[1:]}.",
                "",
            ]
            lines += [f"Note: {row.note}.\n"] if row.note else []
            if one.differences:
                differences = [
                    [name, f"{theirs:.2f}", f"{ours:.2f}", f"{ours - theirs:+.2f}"]
                    for name, (theirs, ours) in one.differences.items()
                ]
                lines += table(["", "published", "measured", "difference"], differences)
            else:
                values = ", ".join(f"{name} {value}" for name, value in row.metrics.items())
                lines += [f"Published: {values}."]
            lines += [""]
        return lines
