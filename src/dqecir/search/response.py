"""The response of a search: results, what was read in the text, weights, filters and timings.

The command line, the HTTP interface and the page show parts of it, with the keys of
:meth:`SearchResponse.as_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dqecir.data.payload_fields import RESERVED, SOLD_OUT
from dqecir.errors import ImageError, ItemPictureError
from dqecir.language.numeric_constraints import NumericConstraint
from dqecir.language.reader import Correction

if TYPE_CHECKING:
    from torch import Tensor


class Contribution(NamedTuple):
    """An attribute or column that raised a result's score, and its share of all contributions (0 to 1)."""

    attribute: str
    share: float


@dataclass(frozen=True)
class RequestedValue:
    """A column and the value that a text requests; ``value`` is None if too many values would fit."""

    attribute: str
    value: str | None
    words: str = ""
    """The words of the text that request it; empty if the method does not report them."""


class QueryVectors(NamedTuple):
    """The final query of a request, for searching the same target embeddings in another engine."""

    vectors: Tensor
    """The query [n_q, D]."""
    prefers: bool
    """Whether a search here also adds numbers for cells and words, which ``vectors`` do not contain."""


@dataclass(frozen=True)
class SearchResult:
    """An item that a search found, with its score (higher is better) and payload."""

    id: str
    score: float
    payload: Mapping[str, Any]
    """The attributes and the picture's path that the index stores; ``ComposedRetriever.search`` makes the
    path absolute."""
    contributions: tuple[Contribution, ...] = ()
    """Attributes that raised the score, the largest share first; empty if not requested, or if the method has
    none."""

    def as_json(self, path: bool) -> dict[str, Any]:
        """Return the result as a dictionary for JSON; ``path``: whether to include the picture's path."""
        return {
            "id": self.id,
            "score": round(self.score, 5),
            **({"path": self.payload.get("path")} if path else {}),
            "sold_out": SOLD_OUT in self.payload,
            "attributes": {name: value for name, value in self.payload.items() if name not in RESERVED},
            "spoke": [
                {"attribute": part.attribute, "share": round(part.share, 4)} for part in self.contributions
            ],
        }


@dataclass(frozen=True, kw_only=True)
class ProductResult(SearchResult):
    """A product that a search found; ``id`` and ``payload`` are those of its best view."""

    product: str
    other_views: tuple[str, ...]
    """Ids of the product's other views, in the order in which they were added."""

    def as_json(self, path: bool) -> dict[str, Any]:
        return {**super().as_json(path), "product": self.product, "views": list(self.other_views)}


@dataclass(frozen=True)
class TextReading:
    """What was read in a modification text, for showing it to the user."""

    requested: tuple[RequestedValue, ...] = ()
    """Requested values, the most probable first; empty if the method does not report them."""
    constraints: tuple[NumericConstraint, ...] = ()
    """Numeric constraints, such as "under 40 euros". One whose ``number`` is None compares with a number that
    the reference does not have, and is not among the filters."""
    unread: tuple[str, ...] = ()
    """Words that belong to no request, number or correction."""
    searched: tuple[str, ...] = ()
    """The unread words that were searched in texts of items, such as titles."""
    searched_in: tuple[str, ...] = ()
    """The columns of these texts."""
    no_text: str = ""
    """Why words cannot be searched in this index; empty if they can, or if there are none."""
    corrections: tuple[Correction, ...] = ()
    """Words that were read as other words, because of a typing error."""
    lacking: tuple[NumericConstraint, ...] = ()
    """Numeric constraints on columns that the index does not have; they have no effect."""
    language: str = "English"
    """Language of the text. If it is not English, only names of values are read."""
    alike: bool = False
    """Whether the text requests nothing, so that the results are the items most similar to the reference.
    False if the method does not report requests."""
    decided_by: tuple[str, ...] | None = None
    """Names of what decided a search by text alone; None for a search with a reference."""
    nowhere: tuple[RequestedValue, ...] = ()
    """Requested values that no item of the index has."""
    together: str = ""
    """One text with the requests of all turns; empty for a single turn."""
    taken_back: tuple[tuple[str, ...], ...] = ()
    """For each turn, its words that later turns replaced or took back; empty for a single turn."""

    @property
    def without_effect(self) -> tuple[str, ...]:
        """The unread words that were not searched in texts of items either."""
        return tuple(word for word in self.unread if word not in self.searched)

    def sentence(self) -> str:
        """Return the reading as one line for users."""
        parts = [f"All turns together: {self.together}."] if self.together else []
        if self.language != "English":
            parts.append(f"The text looks like {self.language}, in which only names of values are read.")
        if self.requested:
            named = (
                f"{one.attribute}: {one.value}" if one.value else one.attribute for one in self.requested
            )
            parts.append(f"Read as {', '.join(named)}.")
        parts += [f"No item has {one.attribute}: {one.value}." for one in self.nowhere]
        parts += [f"“{one.word}” was read as “{one.read_as}”." for one in self.corrections]
        parts += [_told(one) for one in self.constraints]
        parts += [
            f"The index has no number for {one.column}: “{one.words}” had no effect." for one in self.lacking
        ]
        if self.searched:
            parts.append(f"Searched in {_listed(self.searched_in)}: {', '.join(self.searched)}.")
        if self.without_effect:
            parts.append(f"Without effect: {', '.join(self.without_effect)}.")
        if self.no_text:
            parts.append(f"{self.no_text[:1].upper()}{self.no_text[1:]}.")
        if self.decided_by is not None:
            parts.append(_decided(self.decided_by))
        elif self.alike and (self.unread or self.lacking):
            parts.append("The text was not understood, so the results are similar to the reference.")
        return " ".join(parts)


@dataclass(frozen=True)
class SearchResponse:
    """The response to one request."""

    results: tuple[SearchResult, ...]
    """The results, the best first."""
    reading: TextReading
    attribute_weights: Mapping[str, float]
    """Attribute -> the weight that the search used. Empty if the method has no weights."""
    own_weights: Mapping[str, float]
    """Attribute -> the weight that the text alone gives, before the user's settings."""
    filters: tuple[str, ...]
    """The applied filters as expressions; every result fulfils all of them."""
    sold_out_hidden: int | None
    """Number of sold-out items (or products) that fulfil the filters and were left out. None if the engine
    counts too slowly."""
    generation: int
    """The generation of the index that was searched: a number that grows with every change."""
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Step -> milliseconds; for requests that were answered together, those of all together."""

    @property
    def hits(self) -> tuple[SearchResult, ...]:
        """The results, under their name in version 0.1.0."""
        return self.results

    @property
    def bounds(self) -> tuple[NumericConstraint, ...]:
        """The numeric constraints, under their name in version 0.1.0."""
        return self.reading.constraints

    def as_json(self, paths: bool = True) -> dict[str, Any]:
        """Return the response as a dictionary with the keys of version 1 of the HTTP interface.

        ``paths``: whether to include the paths of pictures; the service leaves them out.
        """
        return {
            "answers": [result.as_json(paths) for result in self.results],
            "attribute_weights": _rounded(self.attribute_weights, 4),
            "own_weights": _rounded(self.own_weights, 4),
            "asked": [
                {"attribute": one.attribute, "value": one.value, "words": one.words}
                for one in self.reading.requested
            ],
            "bounds": [_bound(one) for one in self.reading.constraints],
            "unread": list(self.reading.unread),
            "searched": {"words": list(self.reading.searched), "columns": list(self.reading.searched_in)},
            "no_text": self.reading.no_text,
            "corrections": [{"word": one.word, "read_as": one.read_as} for one in self.reading.corrections],
            "lacking": [_bound(one) for one in self.reading.lacking],
            "language": self.reading.language,
            "alike": self.reading.alike,
            "together": self.reading.together,
            "taken_back": [list(words) for words in self.reading.taken_back],
            "decided_by": None if self.reading.decided_by is None else list(self.reading.decided_by),
            "nowhere": [
                {"attribute": one.attribute, "value": one.value, "words": one.words}
                for one in self.reading.nowhere
            ],
            "filters": list(self.filters),
            "sold_out_hidden": self.sold_out_hidden,
            "sentence": self.reading.sentence(),
            "generation": self.generation,
            "timings": _rounded(self.timings, 1),
        }

    def write_sheet(self, path: Path, image: Path, text: str) -> None:
        """Write a PNG to ``path`` that shows the reference picture ``image``, the ``text`` and the results.

        Raises :class:`ItemPictureError` if the picture of a result is missing or cannot be read, and
        ``ImageError`` if ``image`` is.
        """
        # Imported here, because it is slow to import and most searches draw nothing.
        from dqecir.data.images import load_image
        from dqecir.io.contact_sheets import Candidate, SheetRow, contact_sheet

        found = []
        for one in self.results:
            try:
                found.append(Candidate(load_image(str(one.payload["path"])), one.score))
            except ImageError as error:
                raise ItemPictureError(
                    f"the sheet cannot show the item {one.id!r} ({error.reason}): name the new folder of the "
                    "pictures with dqecir index reroot, or run dqecir catalogue update"
                ) from None
        contact_sheet([SheetRow(load_image(image), text, found, self.attribute_weights)], path)


def _decided(parts: Sequence[str]) -> str:
    """Return a sentence that says what decided a search by text alone."""
    if not parts:
        return "The text was not understood, so the items are in the order in which they were added."
    return f"There is no reference image: the results are decided by {' and '.join(parts)}."


def _listed(columns: Sequence[str]) -> str:
    """Return names of text columns as a phrase: "titles and notes"."""
    return " and ".join(f"{name}s" if name in ("title", "description") else name for name in columns)


def _bound(constraint: NumericConstraint) -> dict[str, Any]:
    return {
        "attribute": constraint.column,
        "order": constraint.order,
        "number": constraint.number,
        "words": constraint.words,
    }


def _told(constraint: NumericConstraint) -> str:
    if constraint.number is None:
        return (
            f"The index has no {constraint.column} of the reference, so “{constraint.words}” had no effect: "
            "filter with --where."
        )
    return f"Only {constraint.column} {constraint.order} {constraint.number:.15g}."


def _rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
