"""The forms of a response agree: the engine's, the HTTP interface's, the command line's and the page's."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

import dqecir.service
from dqecir.search.response import SearchResponse, SearchResult, TextReading
from dqecir.service.schemas import About, Answer, FilterCondition, LimitFacts, SearchReply

TYPES = (Path(dqecir.service.__file__).parent / "page" / "types.js").read_text(encoding="utf-8")

KEYS = {
    "results": {"answers"},
    "reading": {
        "asked",
        "bounds",
        "unread",
        "searched",
        "no_text",
        "corrections",
        "lacking",
        "language",
        "alike",
        "decided_by",
        "nowhere",
        "together",
        "taken_back",
        "sentence",
    },
    "attribute_weights": {"attribute_weights"},
    "own_weights": {"own_weights"},
    "filters": {"filters"},
    "sold_out_hidden": {"sold_out_hidden"},
    "generation": {"generation"},
    "timings": {"timings"},
}
"""Where each field of the engine's answer stands in JSON."""


@pytest.fixture
def response(retriever) -> SearchResponse:
    _, payload = next(iter(retriever.index.entries()))
    return retriever.search(
        retriever.index.picture_path(payload), "is red", where="color = green", explain=True
    )


def properties(name: str) -> set[str]:
    """Return the properties of a type of the page."""
    block = re.search(rf"@typedef {{Object}} {name}\n(.*?)\n \*\n", TYPES, re.DOTALL)
    return set(re.findall(r"@property {.*?} (\w+)(?:  |\n|$)", block[1] + "\n"))


def test_every_field_of_an_answer_is_in_its_json(response):
    assert {field.name for field in fields(SearchResponse)} == set(KEYS)
    assert {field.name for field in fields(TextReading)} == {
        "requested", "constraints", "unread", "searched", "searched_in", "no_text", "corrections", "lacking",
        "language", "alike", "decided_by", "nowhere", "together",
        "taken_back",
    }  # fmt: skip
    assert set(response.as_json()) == set.union(*KEYS.values())
    assert {field.name for field in fields(SearchResult)} == {"id", "score", "payload", "contributions"}
    assert set(response.as_json()["answers"][0]) == {"id", "score", "path", "attributes", "sold_out", "spoke"}


def test_the_reply_adds_what_only_a_service_knows(response):
    assert set(SearchReply.model_fields) == set(response.as_json()) | {"took_ms", "method"}
    assert set(Answer.model_fields) == {"id", "score", "attributes", "sold_out", "spoke", "image"}


def test_a_reply_has_the_form_that_is_documented(client, retriever):
    item = next(iter(retriever.index.entries()))[0]
    told = client.post(
        "/v1/search", json={"item": item, "text": "is red", "where": "not color = blue"}
    ).json()
    assert set(told) == set(SearchReply.model_fields)
    SearchReply.model_validate(told, strict=True, extra="forbid")
    assert told["filters"] == ["not (color = blue)"]
    assert set(told["timings"]) == {"read", "compose", "search", "explain"}


@pytest.mark.parametrize(("name", "schema"), [("SearchReply", SearchReply), ("About", About)])
def test_the_page_knows_what_is_sent(name, schema):
    assert properties(name) == set(schema.model_fields)


def test_the_page_knows_limits_and_conditions():
    limits = re.search(r"{{(.*?)}} limits", TYPES)[1]
    assert set(re.findall(r"(\w+): ", limits)) == set(LimitFacts.model_fields)
    condition = re.search(r"{{(.*?)}} Condition", TYPES)[1]
    assert {*re.findall(r"(\w+)\?: ", condition), "attribute"} == set(FilterCondition.model_fields)


def test_the_command_line_prints_the_same(dqecir, served, retriever, response):
    _, payload = next(iter(retriever.index.entries()))
    image = retriever.index.picture_path(payload)
    code, out, _ = dqecir(
        "search", "--index", served[1], "--model", served[0], "--image", image, "--json",
        "--text", "is red", "--where", "color = green",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    told.pop("timings")
    assert told == {key: value for key, value in response.as_json().items() if key != "timings"}
