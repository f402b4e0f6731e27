"""Write the report of a fit for shops: columns, figures, example results, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dqecir.evaluation.bootstrap import PairedGain
from dqecir.evaluation.table import SHOWN
from dqecir.experiments.fit.column_use import ColumnUse
from dqecir.experiments.fit.gain import BEFORE, FITTED, MeasuredFit
from dqecir.io.contact_sheets import SheetRow, html_report
from dqecir.io.files import write_text
from dqecir.training.heads import HeadScore

QUESTIONS, SHOWN_ANSWERS = 12, 10
_ASKS = ("R@10", "mAP@10")


@dataclass(frozen=True)
class Findings:
    """The contents of the report of a fit."""

    measured: MeasuredFit
    uses: Sequence[ColumnUse]
    by_picture: frozenset[str]
    """Columns in which texts are compared with pictures."""
    by_table: frozenset[str]
    """Columns of the table by whose cells a search filters, if its text requests them."""
    heads: Mapping[str, HeadScore]
    facts: Mapping[str, str]
    command: str
    """The command that the user should run next."""

    @property
    def ways(self) -> dict[str, str]:
        """Way of searching -> the columns that can be searched in this way, as one line."""
        ways: dict[str, list[str]] = {"by picture": [], "by the table": [], "not at all": []}
        for use in self.uses:
            if use.column in self.by_picture:
                ways["by picture"].append(use.column)
            elif use.column in self.by_table:
                ways["by the table"].append(use.column)
            else:
                ways["not at all"].append(use.column)
        return {f"searched {way}": ", ".join(columns) or "no column" for way, columns in ways.items()}

    @property
    def verdict(self) -> str:
        """Two sentences: how much the fit gained, and which model is used."""
        return verdict(self.measured.gain)


def verdict(gain: PairedGain) -> str:
    """Return two sentences: which model is better and how certain that is, and which one is used."""
    if not gain.is_certain:
        said = f"It is not certain whether {FITTED} is better than {BEFORE}"
    else:
        said = f"{FITTED.capitalize()} is {'better' if gain.low > 0 else 'worse'} than {BEFORE}"
    chosen = FITTED if gain.difference > 0 else BEFORE
    return (
        f"{said}: mAP@10 {gain.difference:+.1f} points (95 % interval {gain.low:+.1f} to {gain.high:+.1f}, "
        f"{gain.questions:,} questions). The index is built with {chosen}, which answered these questions "
        f"{'better' if gain.difference else 'equally well'}."
    )


def write_reports(out: Path, name: str, findings: Findings, answers: Sequence[SheetRow]) -> Path:
    """Write ``out/report.html`` and ``out/report.md``; return the path of the first.

    ``name`` is that of the catalogue; ``answers`` are example questions with their results.
    """
    notes = {use.column: _note(use, findings.heads) for use in findings.uses}
    asked = findings.measured.asked
    by_column = {
        column: ", ".join(f"{metric} {asked[f'asks of {column}/{metric}']:.1f}" for metric in _ASKS)
        for column in notes
        if f"asks of {column}/{_ASKS[0]}" in asked
    }
    write_text(out / "report.md", "\n".join(_markdown(name, findings, notes, by_column, answers)) + "\n")
    return html_report(
        out / "report.html",
        f"Composed search on {name}",
        "Each question is a picture of the catalogue and a text; right answers, by the table, are outlined. "
        "The questions are drawn by seed, not chosen, from pictures that training did not see.",
        answers,
        findings.measured.rows,
        SHOWN,
        {
            **{f"column {column}": note for column, note in notes.items()},
            **{f"asks of {column}": text for column, text in by_column.items()},
            **findings.facts,
            "search now": findings.command,
        },
        opening={**findings.ways, "gain": findings.verdict},
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
    return note if head.is_shown else f"{note}: pictures hardly show it"


def _markdown(
    name: str,
    findings: Findings,
    notes: Mapping[str, str],
    by_column: Mapping[str, str],
    answers: Sequence[SheetRow],
) -> Iterator[str]:
    """Yield the lines of the report in Markdown.

    ``notes``: column -> what it is used for. ``by_column``: column -> metrics of the questions that request
    it.
    """
    yield from (f"# Composed search on {name}", "", "## Columns", "")
    yield from (f"- {way}: {columns}" for way, columns in findings.ways.items())
    yield ""
    yield from (f"- `{column}`: {note}" for column, note in notes.items())
    yield from ("", "## Did fitting help?", "", findings.verdict, "")
    yield from ("## How good the answers are, in percent", "")
    yield "| ranked by | " + " | ".join(SHOWN) + " |"
    yield "|---|" + "---:|" * len(SHOWN)
    for row, metrics in findings.measured.rows.items():
        cells = [f"{metrics[key]:.1f}" if key in metrics else "" for key in SHOWN]
        yield f"| {row.replace('_', ' ')} | " + " | ".join(cells) + " |"
    yield ""
    yield from (f"- questions that ask of `{column}`: {text}" for column, text in by_column.items())
    yield from ("", "## Questions drawn by seed", "")
    for answer in answers:
        right = [str(rank) for rank, hit in enumerate(answer.candidates, start=1) if hit.right]
        ranks = f"right at rank {', '.join(right)}" if right else f"none right among {SHOWN_ANSWERS}"
        yield f"- {answer.text} ({answer.note}): {ranks}"
    yield ""
    yield from (f"- {fact}: {value}" for fact, value in findings.facts.items())
    yield from ("", "## What to do next", "", "```", findings.command, "```")
