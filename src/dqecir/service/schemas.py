"""What travels: the requests and answers of version 1."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Self

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
from dqecir.search.steering import HEAVIEST, STRICTEST

MOST_ANSWERS = 200
MOST_TEXT = 500
"""Characters of a text or a filter."""
MOST_LISTED = 200
"""Items of one page of a list."""
LARGEST_THUMBNAIL = 1024
"""Pixels of the longer side."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Ids = Annotated[list[Id], Field(max_length=200)]
Weight = Annotated[float, Field(ge=0, le=HEAVIEST, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_EXACT = 2**53
"""Numbers beyond it are others once they have been JSON."""
_LONGEST = 500


def _checked_value(value: object) -> object:
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError(f"a text has at most {_LONGEST} characters")
    elif isinstance(value, bool):
        return value
    elif isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError("a number must be finite")
        if abs(value) > _EXACT:
            raise ValueError("JSON cannot hold a number of this size: send it as a text, in quotes")
    elif value is None:
        raise ValueError("null is no value: leave the attribute out")
    else:
        raise ValueError("a value is a text, a number, true or false")
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
"""Of an attribute."""


class _Body(BaseModel):
    """A request: an unknown field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReferenceBody(_Body):
    """What a text speaks of: an item of the index, or else a picture that comes with the request."""

    needs_reference: ClassVar[bool] = True

    item: Id | None = Field(default=None, description="An item's id; none where an image is uploaded.")
    text: str = Field(default="", max_length=MOST_TEXT, description="What should change.")
    method: str | None = Field(default=None, max_length=40, description="One of the methods of /v1/about.")


class FilterCondition(_Body):
    """An attribute that has one of the values, or a number between two ends; all that is given must hold."""

    attribute: Name
    values: Annotated[list[Annotated[str, StringConstraints(max_length=500)]], Field(max_length=200)] = []
    least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    most: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.values and self.least is None and self.most is None:
            raise ValueError(f"the condition on {self.attribute!r} is empty: give values, least or most")
        return self


class FilterConditions(RootModel[Annotated[list[FilterCondition], Field(max_length=64)]]):
    """Conditions all of which must hold."""

    root: Annotated[list[FilterCondition], Field(max_length=64)] = []


class SearchBody(ReferenceBody):
    """A search: without a text for what is like the reference, without a reference for what the text asks."""

    needs_reference: ClassVar[bool] = False

    k: int = Field(default=24, ge=1, le=MOST_ANSWERS, description="Answers.")
    where: str | None = Field(default=None, max_length=MOST_TEXT, examples=["color = red and price < 40"])
    filters: FilterConditions = Field(
        default=FilterConditions([]), description="Conditions that hold besides `where`."
    )
    weights: dict[str, Weight] | None = Field(
        default=None, max_length=50, description="Attribute to weight, instead of the text's own."
    )
    more: Ids = Field(default=[], description="Items that the answers should be like.")
    less: Ids = Field(default=[], description="Items that the answers should not be like.")
    exclude: Ids = Field(default=[], description="Items that are not to be found.")
    sold_out: bool = Field(default=False, description="Whether to find items that are sold out, too.")
    earlier: Annotated[list[Annotated[str, Field(max_length=MOST_TEXT)]], Field(max_length=20)] = Field(
        default=[], description="Texts of earlier turns, which are kept unless the text changes them."
    )
    strictness: float = Field(
        default=1.0,
        ge=0,
        le=STRICTEST,
        description="How firmly requested values and the garment are held; 0: as the model composes.",
    )
    spoke: bool = Field(default=True, description="Whether to say what spoke for each answer.")


class ExplanationBody(SearchBody):
    """A search, and one of its answers."""

    needs_reference: ClassVar[bool] = True

    target: Id = Field(description="The item whose picture is explained beside the reference.")


class EditBody(ReferenceBody):
    """A picture to be made rather than found."""

    source: str = Field(
        default="reference", pattern="^(reference|best)$", description="What is edited: reference or best."
    )


class DeleteBody(_Body):
    """Items that should go."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)]


class Attributes(RootModel[Annotated[dict[Name, Value], Field(max_length=64)]]):
    """Of an item that is put: name to value."""

    @field_validator("root")
    @classmethod
    def _leave_the_path(cls, given: dict[str, Any]) -> dict[str, Any]:
        if taken := RESERVED & given.keys():
            raise ValueError(f"an attribute cannot be named {min(taken)}: the index uses this name itself")
        return given


class Item(BaseModel):
    id: str
    attributes: dict[str, Any]
    sold_out: bool = Field(description="Whether its attributes say that it cannot be ordered.")
    image: str = Field(description="Where its picture is.")


class ProductItem(Item):
    """An item of an index whose products may have several pictures."""

    product: str = Field(description="Id of the product that the picture shows.")
    views: list[str] = Field(description="Ids of the other items that show it.")


class Items(BaseModel):
    items: list[ProductItem | Item]
    next: str | None = Field(description="Where the list goes on: `after` of the next request.")


class Spoke(BaseModel):
    attribute: str
    share: float


class Answer(Item):
    score: float
    spoke: list[Spoke] = Field(description="What the score owes to which attribute, the most first.")


class ProductAnswer(ProductItem, Answer):
    """A product, by the best of its pictures."""


class AskedOf(BaseModel):
    attribute: str
    value: str | None = None
    words: str = Field(description="The words that ask for it, where the method says.")


class BoundOf(BaseModel):
    attribute: str
    order: str = Field(description="One of < <= > >=.")
    number: float | None = Field(
        description="None where the text compares with what is not known of the reference."
    )
    words: str = Field(description="The words that set it.")


class CorrectionOf(BaseModel):
    word: str
    read_as: str


class SearchedWords(BaseModel):
    """The unread words that texts of items were searched for, and the columns of these texts."""

    words: list[str]
    columns: list[str]


class SearchReply(BaseModel):
    answers: list[ProductAnswer | Answer]
    attribute_weights: dict[str, float] = Field(description="As used.")
    own_weights: dict[str, float] = Field(description="As the text decided.")
    asked: list[AskedOf] = Field(description="What was read from the text, where the method says.")
    bounds: list[BoundOf] = Field(description="What the text said of numbers, which filtered the answers.")
    unread: list[str] = Field(description="Words that no column, number or correction accounts for.")
    searched: SearchedWords
    no_text: str = Field(description="Why the index has no texts to search, where words could have been.")
    corrections: list[CorrectionOf] = Field(description="Words that were read as other ones.")
    lacking: list[BoundOf] = Field(description="Comparisons of columns that no item has; they had no effect.")
    language: str = Field(
        description="Of the text; of another one than English only names of values are read."
    )
    alike: bool = Field(
        description="Whether no request was found in the text. The answers then look like the reference."
    )
    together: str = Field(description="What this turn and earlier ones ask for; empty for a single turn.")
    decided_by: list[str] | None = Field(
        description="What decided a search by text alone; none with a reference."
    )
    nowhere: list[AskedOf] = Field(description="Requested values that no item has.")
    filters: list[str] = Field(description="The filters that were applied, all of which hold.")
    sold_out_hidden: int | None = Field(
        description="Sold-out items that the filters allow and that were left out, where they were counted."
    )
    sentence: str = Field(description="How the text was read, in one line of English.")
    timings: dict[str, float] = Field(description="Step to milliseconds, of the batch that was answered.")
    took_ms: float
    method: str
    generation: int = Field(description="Of the index that answered.")


class HeatMapReply(BaseModel):
    rows: int
    columns: int
    values: list[float] = Field(description="Row by row, 0 to 1.")


class ExplanationReply(BaseModel):
    reference: HeatMapReply
    target: HeatMapReply


class EmbeddingReply(BaseModel):
    embeddings: list[list[float]] = Field(
        description="The query's vectors, as the index is searched by them."
    )
    score_rule: str = Field(description="dot: an item's score is the inner product of its vector with this.")
    model: str = Field(description="Fingerprint of the model.")
    target: str = Field(description="Fingerprint of what made the items' vectors, as in an exported file.")
    filters: list[str] = Field(description="Filters that a search would apply; no vector holds them.")
    exclude: list[str] = Field(description="Items that a search would leave out, the reference among them.")
    prefers: bool = Field(description="Whether a search would also count cells or words of items' texts.")


class EditReply(BaseModel):
    image: str = Field(description="A data URL.")


class Deleted(BaseModel):
    deleted: int


class Suggestions(BaseModel):
    suggestions: list[str]


class NumberFacts(BaseModel):
    """The numbers of an attribute."""

    least: float
    most: float
    counts: list[int] = Field(
        description="How many items have a number in each of the equal parts between least and most."
    )


class AttributeFacts(BaseModel):
    values: list[str] | None = Field(description="All of them where they are few.")
    numeric: bool
    role: Role = Field(description="What the column is for, such as title, url, price or attribute.")
    numbers: NumberFacts | None = Field(description="Where the attribute is numeric.")


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
    """What is served where products may have several pictures; ``items`` are the products."""

    pictures: int


class ProblemDetails(BaseModel):
    type: str
    title: str
    status: int
    detail: str
