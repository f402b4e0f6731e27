"""The report of a fit, for a reader who keeps a shop: columns, figures, answers, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dqecir.evaluation.table import SHOWN
from dqecir.experiments.fit.column_use import ColumnUse
from dqecir.io.contact_sheets import SheetRow, html_report
from dqecir.io.files import write_text
from dqecir.training.heads import HeadScore

QUESTIONS, SHOWN_ANSWERS = 12, 10
_ASKS = ("R@10", "mAP@10")


@dataclass(frozen=True)
class Findings:
    """What a fit found out: rows of metrics, the same by the column asked of, and the use of every column."""

    rows: Mapping[str, Mapping[str, float]]
    asked: Mapping[str, float]
    uses: Sequence[ColumnUse]
    heads: Mapping[str, HeadScore]
    facts: Mapping[str, str]
    command: str
    """What to type next."""


def write_reports(out: Path, name: str, findings: Findings, answers: Sequence[SheetRow]) -> Path:
    """Write ``out/report.html`` and ``out/report.md``; returns the former."""
    notes = {use.column: _note(use, findings.heads) for use in findings.uses}
    by_column = {
        column: ", ".join(f"{metric} {findings.asked[f'asks of {column}/{metric}']:.1f}" for metric in _ASKS)
        for column in notes
        if f"asks of {column}/{_ASKS[0]}" in findings.asked
    }
    write_text(out / "report.md", _markdown(name, findings, notes, by_column, answers))
    return html_report(
        out / "report.html",
        f"Composed search on {name}",
        "Each question is a picture of the catalogue and a text; right answers, by the table, are outlined. "
        "The questions are drawn by seed, not chosen, from pictures that training did not see.",
        answers,
        findings.rows,
        SHOWN,
        {
            **{f"column {column}": note for column, note in notes.items()},
            **{f"asks of {column}": text for column, text in by_column.items()},
            **findings.facts,
            "search now": findings.command,
        },
    )


def _note(use: ColumnUse, heads: Mapping[str, HeadScore]) -> str:
    head = heads.get(use.column)
    if head is None:
        return f"{use.kind}: {use.note}"
    origin = "the model's own reading of it is kept" if head.kept else "learned here"
    note = (
        f"{use.kind}: {use.note}; {origin}, right for {head.accuracy:.0f} % of unseen pictures "
        f"({head.commonest:.0f} % have the commonest value)"
    )
    return note if head.accuracy > head.commonest else f"{note}: pictures hardly show it"


def _markdown(
    name: str,
    findings: Findings,
    notes: Mapping[str, str],
    by_column: Mapping[str, str],
    answers: Sequence[SheetRow],
) -> str:
    lines = [f"# Composed search on {name}", "", "## Columns", ""]
    lines += [f"- `{column}`: {note}" for column, note in notes.items()]
    lines += ["", "## How good the answers are, in percent", ""]
    lines += ["| ranked by | " + " | ".join(SHOWN) + " |", "|---|" + "---:|" * len(SHOWN)]
    for row, metrics in findings.rows.items():
        cells = [f"{metrics[key]:.1f}" if key in metrics else "" for key in SHOWN]
        lines.append(f"| {row.replace('_', ' ')} | " + " | ".join(cells) + " |")
    lines += ["", *[f"- questions that ask of `{column}`: {text}" for column, text in by_column.items()]]
    lines += ["", "## Questions drawn by seed", ""]
    for answer in answers:
        right = [str(rank) for rank, hit in enumerate(answer.candidates, start=1) if hit.right]
        ranks = f"right at rank {', '.join(right)}" if right else f"none right among {SHOWN_ANSWERS}"
        lines.append(f"- {answer.text} ({answer.note}): {ranks}")
    lines += ["", *[f"- {fact}: {value}" for fact, value in findings.facts.items()]]
    return "\n".join([*lines, "", "## What to do next", "", "```", findings.command, "```", ""])
