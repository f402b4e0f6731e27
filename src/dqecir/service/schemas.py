"""The schemas of requests and responses of version 1 of the HTTP interface."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dqecir.data.column_roles import Role
from dqecir.data.payload_fields import RESERVED
from dqecir.search.search_request import HEAVIEST_REFERENCE
from dqecir.search.steering import HEAVIEST, STRICTEST

MOST_ANSWERS = 200
MOST_TEXT = 500
"""Most characters of a modification text or of a filter."""
MOST_LISTED = 200
"""Most items on one page of the item list."""
MOST_REFERENCES = 8
"""Most references besides the first."""
LARGEST_THUMBNAIL = 1024
"""Most pixels of a thumbnail's longer side."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Ids = Annotated[list[Id], Field(max_length=200)]
Weight = Annotated[float, Field(ge=0, le=HEAVIEST, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_EXACT = 2**53
"""Larger integers may lose digits in JSON, because many readers store them as floating-point numbers."""
_LONGEST = 500
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Control characters that are refused; line breaks and tabs are allowed."""


def _checked_value(value: object) -> object:
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError(f"a text has at most {_LONGEST} characters: shorten it")
        if _CONTROL.search(value):
            raise ValueError("a text may not contain control characters: remove them")
    elif isinstance(value, bool):
        return value
    elif isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError("a number must be finite")
        if abs(value) > _EXACT:
            raise ValueError("JSON cannot hold a number of this size: send it as a text, in quotes")
    elif value is None:
        raise ValueError("null is not a value: leave out the attribute")
    else:
        raise ValueError("a value must be a text, a number, true or false")
    return value


Value = Annotated[
    Any,
    AfterValidator(_checked_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": _LONGEST},
                {"type": "boolean"},
                {"type": "number", "minimum": -_EXACT, "maximum": _EXACT},
            ]
        }
    ),
]
"""The value of an attribute: a text, a number, true or false."""


class _Body(BaseModel):
    """The base of all request bodies; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceBody(_Body):
    """A text and a reference picture, which is an item of the index or is uploaded with the request."""

    item: Id | None = Field(default=None, description="Id of an item. Default: none, with an uploaded image.")
    text: str = Field(default="", max_length=MOST_TEXT, description="What should change.")
    method: str | None = Field(default=None, max_length=40, description="One of the methods of /v1/about.")


class FurtherReference(_Body):
    """One of several references: an item of the index, or, without an id, the next uploaded picture."""

    item: Id | None = Field(default=None, description="An item's id; none for the next uploaded image.")
    weight: float = Field(
        default=1.0,
        gt=0,
        le=HEAVIEST_REFERENCE,
        description="Its weight relative to the others; the first has 1.",
    )


class FilterCondition(_Body):
    """A condition on an attribute: one of ``values``, or a number from ``least`` to ``most``, or both."""

    attribute: Name
    values: Annotated[list[Annotated[str, StringConstraints(max_length=500)]], Field(max_length=200)] = []
    least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    most: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.values and self.least is None and self.most is None:
            raise ValueError(f"the condition on {self.attribute!r} is empty: give values, least or most")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"the condition on {self.attribute!r} has least above most: exchange them")
        return self


class FilterConditions(RootModel[Annotated[list[FilterCondition], Field(max_length=64)]]):
    """Conditions that items must all fulfil."""

    root: Annotated[list[FilterCondition], Field(max_length=64)] = []


class SearchBody(ReferenceBody):
    """A search. Without a text it finds items like the reference; without a reference, the text decides."""

    k: int = Field(default=24, ge=1, le=MOST_ANSWERS, description="Number of results.")
    where: str | None = Field(default=None, max_length=MOST_TEXT, examples=["color = red and price < 40"])
    filters: FilterConditions = Field(default=FilterConditions([]), description="Conditions besides `where`.")
    weights: dict[str, Weight] | None = Field(
        default=None, max_length=50, description="Attribute -> weight, instead of the text's weight."
    )
    more: Ids = Field(default=[], description="Ids of items that results should be like.")
    less: Ids = Field(default=[], description="Ids of items that results should not be like.")
    exclude: Ids = Field(default=[], description="Ids of items to leave out.")
    sold_out: bool = Field(default=False, description="Whether sold-out items may be results.")
    earlier: Annotated[list[Annotated[str, Field(max_length=MOST_TEXT)]], Field(max_length=20)] = Field(
        default=[],
        description="Texts of earlier turns, whose requests are kept unless the text changes them.",
    )
    strictness: float = Field(
        default=1.0,
        ge=0,
        le=STRICTEST,
        description="How strongly requested values and the garment count; 0: as the model decides.",
    )
    spoke: bool = Field(
        default=True, description="Whether to return contributions of attributes to each result."
    )
    rerank: int = Field(
        default=0, ge=0, le=MOST_ANSWERS, description="How many of the first candidates are scored again."
    )
    references: Annotated[list[FurtherReference], Field(max_length=MOST_REFERENCES)] = Field(
        default=[],
        description="References besides the first. Their images are uploaded after the first's, in order.",
    )

    @property
    def stands_alone(self) -> bool:
        """Whether the request can be searched without a first reference."""
        return bool(self.references or self.text.strip() or "".join(self.earlier).strip())


class ExplanationBody(SearchBody):
    """A search and one of its results, for heat maps."""

    target: Id = Field(description="Id of the item whose picture is explained with the first reference.")

    @property
    def stands_alone(self) -> bool:
        return bool(self.references)


class EditBody(ReferenceBody):
    """A request to edit a picture as a text says."""

    source: str = Field(
        default="reference",
        pattern="^(reference|best)$",
        description="The picture to edit: the reference, or the best result.",
    )


class DeleteBody(_Body):
    """The ids of items or products to delete."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)]


class Attributes(RootModel[Annotated[dict[Name, Value], Field(max_length=64)]]):
    """The attributes of an added item: name -> value."""

    @field_validator("root")
    @classmethod
    def _leave_the_path(cls, given: dict[str, Any]) -> dict[str, Any]:
        if taken := RESERVED & given.keys():
            raise ValueError(
                f"an attribute cannot be named {min(taken)}: the index uses this name itself, choose another"
            )
        for name in given:
            if not name.isprintable() or not name.strip():
                raise ValueError(f"an attribute cannot be named {name!r}: use visible characters")
        return given


class Item(BaseModel):
    id: str
    attributes: dict[str, Any]
    sold_out: bool = Field(description="Whether its attributes say that it is sold out.")
    image: str = Field(description="Address of its picture.")


class ProductItem(Item):
    """A picture of a product, in an index of products."""

    product: str = Field(description="Id of the product that the picture shows.")
    views: list[str] = Field(description="Ids of the product's other items.")


class Items(BaseModel):
    items: list[ProductItem | Item]
    next: str | None = Field(description="`after` of the next request; none at the end.")


class Spoke(BaseModel):
    attribute: str
    share: float


class Answer(Item):
    score: float
    spoke: list[Spoke] = Field(description="Contributions of attributes, the largest first.")


class ProductAnswer(ProductItem, Answer):
    """A product that was found, shown by the best of its pictures."""


class AskedOf(BaseModel):
    attribute: str
    value: str | None = None
    words: str = Field(description="The words of the text that request it; empty if unknown.")


class BoundOf(BaseModel):
    attribute: str
    order: str = Field(description="One of < <= > >=.")
    number: float | None = Field(description="None if the reference's number is unknown.")
    words: str = Field(description="The words of the constraint.")


class CorrectionOf(BaseModel):
    word: str
    read_as: str


class SearchedWords(BaseModel):
    """Words that no column explains and that were searched in texts of items, and these texts' columns."""

    words: list[str]
    columns: list[str]


class SearchReply(BaseModel):
    answers: list[ProductAnswer | Answer]
    attribute_weights: dict[str, float] = Field(description="Attribute -> weight that was used.")
    own_weights: dict[str, float] = Field(description="Attribute -> weight that the text gives.")
    asked: list[AskedOf] = Field(description="Requested values of the text, if the method reports them.")
    bounds: list[BoundOf] = Field(description="Numeric constraints of the text; those with a number filter.")
    unread: list[str] = Field(description="Words that belong to no request, number or correction.")
    searched: SearchedWords
    no_text: str = Field(description="Why the index has no texts, if there are words to search.")
    corrections: list[CorrectionOf] = Field(description="Words that were corrected.")
    lacking: list[BoundOf] = Field(
        description="Numeric constraints without effect, because no item has the column."
    )
    language: str = Field(
        description="The text's language; if it is not English, only names of values are read."
    )
    alike: bool = Field(
        description="Whether no request was found in the text. Results are then similar to the reference."
    )
    together: str = Field(description="The requests of all turns in one text; empty for a single turn.")
    taken_back: list[list[str]] = Field(
        description="For each of several turns, its words that no longer count because of later turns."
    )
    decided_by: list[str] | None = Field(
        description="What decided a search by text alone; none for a search with a reference."
    )
    nowhere: list[AskedOf] = Field(description="Requested values that no item has.")
    filters: list[str] = Field(description="The applied filters; results fulfil all of them.")
    sold_out_hidden: int | None = Field(
        description="Number of sold-out items that were left out, if counted."
    )
    sentence: str = Field(description="The reading of the text as one English line.")
    timings: dict[str, float] = Field(description="Step -> milliseconds of the batch.")
    took_ms: float
    method: str
    generation: int = Field(description="Generation of the index that was searched.")


class HeatMapReply(BaseModel):
    rows: int
    columns: int
    values: list[float] = Field(description="Row by row, 0 to 1.")


class ExplanationReply(BaseModel):
    reference: HeatMapReply
    target: HeatMapReply


class EmbeddingReply(BaseModel):
    embeddings: list[list[float]] = Field(description="The query's vectors.")
    score_rule: str = Field(description="dot: an item's score is the inner product of its vector with this.")
    model: str = Field(description="Fingerprint of the model.")
    target: str = Field(description="Fingerprint of the items' vectors, as in an exported file.")
    filters: list[str] = Field(
        description="Filters that a search would apply, which are not part of vectors."
    )
    exclude: list[str] = Field(description="Ids that a search would leave out, including the reference.")
    prefers: bool = Field(description="Whether a search would also add numbers for cells or words to scores.")


class EditReply(BaseModel):
    image: str = Field(description="A data URL.")


class Deleted(BaseModel):
    deleted: int


class Suggestions(BaseModel):
    suggestions: list[str]


class NumberFacts(BaseModel):
    """The numbers of an attribute: smallest, largest, and a histogram."""

    least: float
    most: float
    counts: list[int] = Field(description="Number of items in each of the equal bins from least to most.")


class AttributeFacts(BaseModel):
    values: list[str] | None = Field(description="All values, if they are few.")
    numeric: bool
    role: Role = Field(description="Role of the column, such as title, url, price or attribute.")
    numbers: NumberFacts | None = Field(description="Facts of a numeric attribute.")


class MethodFacts(BaseModel):
    name: str
    title: str


class KeyFacts(BaseModel):
    read: bool
    write: bool


class LimitFacts(BaseModel):
    bytes: int
    pixels: int
    k: int
    text: int
    weight: float = Field(description="The largest weight of an attribute; the smallest is 0.")
    references: int = Field(description="Most references besides the first.")


class About(BaseModel):
    version: str
    items: int
    model: str
    methods: list[MethodFacts]
    attributes: dict[str, AttributeFacts]
    weights: list[str] = Field(description="Attributes whose weights can be set.")
    has_sold_out: bool = Field(description="Whether any item is sold out.")
    expert: bool = Field(description="Whether the page shows scores, times and ids.")
    link_target: str = Field(description="Where links to products open: a target of HTML.")
    can_edit: bool
    edit_note: str
    can_write: bool
    key_needed: KeyFacts
    limits: LimitFacts


class ProductAbout(About):
    """The description of a service with an index of products; ``items`` is the number of products."""

    pictures: int


class ProblemDetails(BaseModel):
    type: str
    title: str
    status: int
    detail: str
