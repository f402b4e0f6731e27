"""Show search results as pictures: contact sheets (PNG), and a report as one HTML file.

Both show the reference, the text, the best results (right answers are marked), and the weight of each
attribute in the query.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import matplotlib
from jinja2 import Environment
from PIL import Image, ImageDraw, ImageFont

from dqecir.io.files import write_bytes, write_text
from dqecir.io.plots import encoded

SIDE = 144
GAP = 10
MARGIN = 24
TEXT_WIDTH = 240
INK, FAINT, RIGHT, PAPER = "#1c1c1e", "#6e6e73", "#1a8f4c", "#ffffff"


@dataclass(frozen=True)
class Candidate:
    """A result: its picture, its score, and whether it is right (None: unknown)."""

    picture: Image.Image
    score: float
    right: bool | None = None


@dataclass(frozen=True)
class SheetRow:
    """A query and its results, the best first; ``note`` is a remark that only the HTML report shows."""

    reference: Image.Image
    text: str
    candidates: Sequence[Candidate]
    attribute_weights: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib contains this font, so a sheet looks the same on every machine.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def fitted(picture: Image.Image) -> Image.Image:
    """Return the whole picture, scaled to fit into the middle of a white square of ``SIDE`` pixels."""
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (SIDE, SIDE), PAPER)
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    square.paste(resized, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def contact_sheet(answers: Sequence[SheetRow], path: Path, title: str = "") -> Path:
    """Write a PNG with one row for each of ``answers``: reference, text and weights, then the results.

    Return ``path``. ``title`` stands above the rows.
    """
    columns = max(len(answer.candidates) for answer in answers)
    row_height = SIDE + 34
    head = 56 if title else MARGIN
    width = 2 * MARGIN + SIDE + GAP + TEXT_WIDTH + columns * (SIDE + GAP)
    sheet = Image.new("RGB", (width, head + len(answers) * row_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((MARGIN, 18), title, INK, _font(18, bold=True))
    for row, answer in enumerate(answers):
        _draw_row(sheet, draw, answer, head + row * row_height)
    write_bytes(path, encoded(sheet, "PNG", optimize=True))
    return path


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, answer: SheetRow, top: int) -> None:
    sheet.paste(fitted(answer.reference), (MARGIN, top))
    draw.rectangle((MARGIN - 1, top - 1, MARGIN + SIDE, top + SIDE), outline="#d2d2d7")
    left = MARGIN + SIDE + GAP
    lines = textwrap.wrap(answer.text, 30)[:5]
    draw.multiline_text((left, top + 2), "\n".join(lines), INK, _font(13), spacing=3)
    place = top + SIDE - 18 * len(answer.attribute_weights)
    # A weight may be above 1 if it is boosted or set by the user.
    whole = max([1.0, *answer.attribute_weights.values()])
    for name, weight in answer.attribute_weights.items():
        draw.text((left, place), name, FAINT, _font(11))
        draw.rectangle((left + 66, place + 3, left + 66 + round(90 * weight / whole), place + 10), fill=INK)
        draw.text((left + 164, place), f"{weight:.2f}", FAINT, _font(11))
        place += 18
    left += TEXT_WIDTH
    for rank, candidate in enumerate(answer.candidates, start=1):
        sheet.paste(fitted(candidate.picture), (left, top))
        if candidate.right:
            draw.rectangle((left - 3, top - 3, left + SIDE + 2, top + SIDE + 2), outline=RIGHT, width=3)
        label = f"{rank}.  {candidate.score:.2f}" + ("  right" if candidate.right else "")
        colour = RIGHT if candidate.right else FAINT
        draw.text((left, top + SIDE + 6), label, colour, _font(11, bold=bool(candidate.right)))
        left += SIDE + GAP


def data_uri(picture: Image.Image) -> str:
    """Return a small JPEG of the picture as a ``data:`` address, for use inside HTML."""
    return "data:image/jpeg;base64," + base64.b64encode(encoded(fitted(picture), "JPEG", quality=88)).decode()


def html_report(
    path: Path,
    title: str,
    introduction: str,
    answers: Sequence[SheetRow],
    rows: Mapping[str, Mapping[str, float]],
    shown: Sequence[str],
    facts: Mapping[str, str],
    opening: Mapping[str, str] | None = None,
) -> Path:
    """Write a report as one HTML file without other files; return ``path``.

    It has ``opening`` (heading -> text), a table of ``rows`` (name -> metric -> value) with the metrics
    ``shown``, the results ``answers``, and ``facts`` (name -> value).
    """
    template = (resources.files("dqecir.io") / "templates" / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = data_uri
    text = environment.from_string(template).render(
        title=title,
        introduction=introduction,
        answers=answers,
        rows=rows,
        shown=shown,
        facts=facts,
        opening=opening or {},
    )
    write_text(path, text)
    return path
