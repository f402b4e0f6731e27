"""Searches through the service give the same results as searches without it, alone and in batches."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from benchmarks.search_path import calls_of_a_search

from dqecir.index.exact import ExactIndex
from dqecir.index.item_list import StoredItems
from tests.service.conftest import form, put, refused


def ids_of(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [answer["id"] for answer in response.json()["answers"]]


@pytest.fixture
def item(retriever) -> str:
    return next(iter(retriever.index.entries()))[0]


def path_of(retriever, item: str) -> Path:
    return retriever.index.picture_path(retriever.index.payload(item))


def test_an_item_is_searched_from_as_without_a_service(client, retriever, item):
    told = client.post("/v1/search", json={"item": item, "text": "is red", "k": 5}).json()
    found = retriever.search(path_of(retriever, item), "is red", 5)
    assert [answer["id"] for answer in told["answers"]] == [hit.id for hit in found.hits]
    assert [answer["score"] for answer in told["answers"]] == pytest.approx(
        [hit.score for hit in found.hits], abs=1e-4
    )
    assert told["attribute_weights"] == told["own_weights"]
    assert told["asked"] == [{"attribute": "color", "value": "red", "words": "is red"}]
    first = told["answers"][0]
    assert "path" not in first["attributes"]
    assert first["attributes"]["color"]
    assert client.get(first["image"]).headers["content-type"] == "image/jpeg"


def test_a_search_makes_few_calls_between_files(tmp_path):
    calls = calls_of_a_search(tmp_path)
    assert 10 < len(calls) <= 20, "\n".join(" -> ".join(call) for call in sorted(calls))


def test_a_search_asks_the_index_for_no_facts(client, item, monkeypatch):
    monkeypatch.setattr(ExactIndex, "info", lambda index: pytest.fail("info() reads every column's name"))
    told = client.post("/v1/search", json={"item": item, "text": "is red"}).json()
    assert told["generation"] == 1


def test_an_explained_search_parses_its_answers_and_no_other_item(client, item, monkeypatch):
    parsed, entry = [], StoredItems.entry
    monkeypatch.setattr(StoredItems, "entry", lambda items, row: parsed.append(row) or entry(items, row))
    told = client.post("/v1/search", json={"item": item, "text": "is red", "k": 5}).json()
    assert any(answer["spoke"] for answer in told["answers"])
    # The reference is looked up too.
    assert 5 <= len(parsed) < 10


def test_a_search_looks_for_no_picture_but_that_of_its_reference(client, item, monkeypatch):
    looked, picture_path = [], ExactIndex.picture_path
    monkeypatch.setattr(
        ExactIndex, "picture_path", lambda index, payload: looked.append(1) or picture_path(index, payload)
    )
    assert len(ids_of(client.post("/v1/search", json={"item": item, "k": 20}))) == 20
    assert len(looked) == 1


def test_what_spoke_are_shares_the_biggest_first(client, item):
    told = client.post("/v1/search", json={"item": item, "text": "is red", "k": 9}).json()
    spoke = [[part["share"] for part in answer["spoke"]] for answer in told["answers"]]
    assert any(spoke)
    for shares in filter(None, spoke):
        # Small shares are left out.
        assert 0.8 < sum(shares) < 1.001
        assert shares == sorted(shares, reverse=True)
    silent = client.post("/v1/search", json={"item": item, "text": "is red", "k": 9, "spoke": False}).json()
    assert [answer["spoke"] for answer in silent["answers"]] == [[]] * 9
    assert [answer["id"] for answer in silent["answers"]] == [answer["id"] for answer in told["answers"]]


def test_an_uploaded_picture_is_searched_from(client, retriever, item):
    path = path_of(retriever, item)
    told = client.post("/v1/search", **form({"text": "is red", "k": 4}, path.read_bytes()))
    # The service cannot know that the upload is an item; the retriever was given the bytes as well.
    assert ids_of(told) == [hit.id for hit in retriever.search(path.read_bytes(), "is red", 4).hits]


def test_what_is_said_of_a_price_filters_and_is_told(client, picture):
    for number, price in enumerate(["€ 10", "€ 20", "€ 30"]):
        assert put(client, f"priced-{number}", picture, {"price": price}).status_code == 201
    request = {"item": "priced-1", "text": "is red and cheaper", "k": 200}
    told = client.post("/v1/search", json=request)
    assert ids_of(told) == ["priced-0"]
    assert told.json()["bounds"] == [{"attribute": "price", "order": "<", "number": 20.0, "words": "cheaper"}]
    assert told.json()["asked"] == [{"attribute": "color", "value": "red", "words": "is red"}]
    told = client.post("/v1/search", **form({"text": "at least 20 euros", "k": 200}, picture))
    assert set(ids_of(told)) == {"priced-1", "priced-2"}
    told = client.post("/v1/search", **form({"text": "cheaper", "k": 200}, picture))
    assert len(ids_of(told)) == 200
    assert told.json()["bounds"] == [{"attribute": "price", "order": "<", "number": None, "words": "cheaper"}]
    facts = client.get("/v1/about").json()["attributes"]["price"]
    assert facts["values"] == ["€ 10", "€ 20", "€ 30"]
    assert facts["numeric"] and facts["role"] == "price"
    assert facts["numbers"] == {"least": 10, "most": 30, "counts": [1, *[0] * 9, 1, *[0] * 8, 1]}
    looked = client.post("/v1/explanations", json={**request, "target": "priced-0"})
    assert looked.status_code == 200


def test_an_item_whose_tokens_are_kept_is_found_from_as_before(client, item):
    request = {"item": item, "text": "is blue", "k": 10}
    first, second = (client.post("/v1/search", json=request).json()["answers"] for _ in range(2))
    assert first == second


def test_weights_likes_filters_and_exclusions_are_those_of_a_search(client, retriever, item):
    some = [hit.id for hit in retriever.search(path_of(retriever, item), "is red", 20).hits]
    request = {
        "item": item,
        "text": "is red",
        "k": 6,
        "where": "not color = black",
        "weights": {"colour": 3.0, "shape": 0.0},
        "more": [some[3]],
        "less": [some[0]],
        "exclude": [some[1]],
    }
    told = client.post("/v1/search", json=request).json()
    found = retriever.search(
        path_of(retriever, item),
        "is red",
        6,
        exclude=[some[1]],
        where="not color = black",
        weights=request["weights"],
        more=request["more"],
        less=request["less"],
    )
    ids = [answer["id"] for answer in told["answers"]]
    assert ids == [hit.id for hit in found.hits]
    assert not {item, some[0], some[1]} & set(ids)
    assert told["attribute_weights"]["colour"] == pytest.approx(3)
    assert told["own_weights"]["colour"] != told["attribute_weights"]["colour"]


def test_without_a_text_it_finds_what_is_like(client, retriever, item):
    told = client.post("/v1/search", json={"item": item, "k": 3})
    assert ids_of(told) == [hit.id for hit in retriever.search(path_of(retriever, item), k=3).hits]


def test_many_at_once_are_answered_as_one_by_one(serving, retriever):
    items = [item_id for item_id, _ in retriever.index.entries()][:24]
    wheres = [None, "color = red", "not color = red"]
    requests = [
        {
            "item": item,
            "text": "is red" if n % 2 else "is blue and has no print",
            "k": 3 + n,
            "where": wheres[n % 3],
        }
        for n, item in enumerate(items)
    ]
    with serving(batch=8) as client:
        alone = [ids_of(client.post("/v1/search", json=request)) for request in requests]
    with serving(batch=8) as client, ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda request: ids_of(client.post("/v1/search", json=request)), requests))
        sizes = client.get("/metrics").text
    assert together == alone
    batches = float(sizes.partition("dqecir_batch_size_count ")[2].split()[0])
    assert batches < len(requests), "nothing was answered together"


def test_a_wrong_request_spoils_no_other(client, item):
    wrong = {"item": item, "text": "is red", "weights": {"nonsense": 1}}
    right = {"item": item, "text": "is red"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: client.post("/v1/search", json=request), [wrong, right] * 8))
    assert [answer.status_code for answer in answers] == [422, 200] * 8
    assert "nonsense" in refused(answers[0], 422)


def test_heat_maps_lie_over_both_pictures(client, item, picture, retriever):
    target = retriever.search(path_of(retriever, item), "is red", 1).hits[0].id
    request = {"text": "is red", "target": target}
    for told in (
        client.post("/v1/explanations", json={"item": item, **request}),
        client.post("/v1/explanations", **form(request, picture)),
    ):
        assert told.status_code == 200, told.text
        for heat in told.json().values():
            assert len(heat["values"]) == heat["rows"] * heat["columns"] > 1
            assert max(heat["values"]) == 1
            assert min(heat["values"]) >= 0


def test_without_strictness_embeddings_are_as_the_model_composes(client, retriever, item):
    told = client.post("/v1/embeddings", json={"item": item, "text": "is red", "strictness": 0}).json()
    right = retriever.encode_query([path_of(retriever, item)], ["is red"])[0]
    assert told["score_rule"] == "likelihood"
    for row, vector in zip(told["embeddings"], right.tolist(), strict=True):
        assert row == pytest.approx(vector, abs=1e-4)


def test_embeddings_tell_what_no_vector_holds(client, retriever, item):
    request = {"item": item, "text": "is red and has pockets", "where": "not color = black"}
    told = client.post("/v1/embeddings", json=request).json()
    assert told["filters"] == ["not (color = black)"]
    assert told["exclude"] == [item]
    # The cells of the table show which items are red.
    assert told["prefers"]
    plain = client.post("/v1/embeddings", json={**request, "strictness": 0, "text": "is red"}).json()
    assert not plain["prefers"]
    message = refused(client.post("/v1/embeddings", json={**request, "where": "colour = red"}), 422)
    assert "did you mean 'color'" in message
    refused(client.post("/v1/embeddings", json={"text": " "}), 422)


def test_suggestions_go_on_from_what_was_typed(client, item):
    told = client.get("/v1/suggestions", params={"text": "is bl", "limit": 3}).json()["suggestions"]
    assert "is blue" in told
    assert len(told) <= 3
    refused(client.get("/v1/suggestions", params={"text": "is", "item": "none/such"}), 404)


def test_the_only_value_of_an_item_is_not_suggested(client, item):
    index = client.app.state.service.main.index
    asked = {"text": "is bl", "item": item, "limit": 50}
    for value, is_suggested in ((["blue"], False), (["blue", "red"], True)):
        index.change_payloads({item: {**index.payload(item), "color": value}})
        told = client.get("/v1/suggestions", params=asked).json()["suggestions"]
        assert ("is blue" in told) == is_suggested


def test_a_second_method_answers_by_its_name(serving, settings, item):
    beside = {"name": "again", "index": settings.index, "model": settings.model}
    with serving(also=[beside]) as client:
        assert [method["name"] for method in client.get("/v1/about").json()["methods"]] == [
            "dqe_values",
            "again",
        ]
        told = client.post("/v1/search", json={"item": item, "text": "is red", "method": "again"}).json()
        assert told["method"] == "again"
        assert "agian" in refused(client.post("/v1/search", json={"item": item, "method": "agian"}), 422)


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"text": " "}, 422, "either an item"),
        ({"item": "none/such", "text": "is red"}, 404, "none/such"),
        ({"item": "ITEM", "text": "is red", "k": 0}, 422, "k"),
        ({"item": "ITEM", "text": "is red", "k": 201}, 422, "k"),
        ({"item": "ITEM", "text": "x" * 501}, 422, "text"),
        ({"item": "ITEM", "text": "is red", "where": "colr = red"}, 422, "color"),
        ({"item": "ITEM", "text": "is red", "where": "color ="}, 422, "filter"),
        ({"item": "ITEM", "text": "is red", "where": "(" * 400}, 422, "nested"),
        ({"item": "ITEM", "text": "is red", "weights": {"colour": 3.5}}, 422, "weights"),
        ({"item": "ITEM", "text": "is red", "weights": {"colour": -1}}, 422, "weights"),
        ({"item": "ITEM", "text": "is red", "more": ["none/such"]}, 404, "none/such"),
        ({"item": "ITEM", "text": "is red", "colour": "red"}, 422, "colour"),
        ({"item": None, "text": 5}, 422, "text"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_sentence(client, item, request_, status, said):
    asked = {name: item if value == "ITEM" else value for name, value in request_.items()}
    assert said in refused(client.post("/v1/search", json=asked), status)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_weight_is_what_no_number_is(client, item, number):
    body = f'{{"item": {json.dumps(item)}, "text": "is red", "weights": {{"colour": {number}}}}}'
    refused(client.post("/v1/search", content=body, headers={"content-type": "application/json"}), 422)


def test_weights_are_taken_up_to_the_one_that_about_tells(client, item):
    most = client.get("/v1/about").json()["limits"]["weight"]
    assert client.post("/v1/search", json={"item": item, "weights": {"colour": most}}).status_code == 200
    refused(client.post("/v1/search", json={"item": item, "weights": {"colour": most + 0.1}}), 422)


def test_both_an_item_and_a_picture_are_one_too_many(client, item, picture):
    assert "either" in refused(client.post("/v1/search", **form({"item": item}, picture)), 422)


def test_no_search_waits_for_the_index_on_the_event_loop(client, item, retriever, monkeypatch):
    ids = [entry[0] for entry in retriever.index.entries()][:3]
    asked = []
    for name in ("payloads", "columns", "tokens"):
        method = getattr(ExactIndex, name)

        def watched(*given, name=name, method=method):
            asked.append((name, threading.current_thread().name))
            return method(*given)

        monkeypatch.setattr(ExactIndex, name, watched)
    body = {"item": item, "text": "is red", "more": ids, "less": ids[:1], "where": "color = red"}
    assert client.post("/v1/search", json=body).status_code == 200
    assert {name for name, _ in asked} == {"payloads", "columns", "tokens"}
    assert {re.sub(r"[-_]\d+", "", thread) for _, thread in asked} <= {"decoder", "model"}


def test_a_liked_item_that_is_deleted_at_this_moment_is_said_to_be_gone(client, item, picture, monkeypatch):
    assert put(client, "liked", picture).status_code == 201
    tokens = ExactIndex.tokens
    monkeypatch.setattr(ExactIndex, "tokens", lambda index, ids: index.delete(ids) and tokens(index, ids))
    said = refused(client.post("/v1/search", json={"item": item, "more": ["liked"]}), 404)
    assert said == "there is no item 'liked' in the index: check its id"


def test_a_condition_that_asks_for_nothing_is_refused(client, item):
    empty = [{"attribute": "color"}]
    told = client.post("/v1/search", json={"item": item, "filters": empty})
    assert "give values, least or most" in refused(told, 422)
    listed = client.get("/v1/items", params={"filters": json.dumps(empty)})
    assert "give values, least or most" in refused(listed, 422)


AWKWARD = "says \"it's both' quotes\", in {braces}"


def test_conditions_filter_what_no_expression_can_say(client, picture):
    for name, price in (("a", 3), ("b", 7)):
        assert put(client, name, picture, {"print": AWKWARD, "price": price}).status_code == 201
    conditions = [{"attribute": "print", "values": ["other", AWKWARD]}]
    found = client.post("/v1/search", **form({"filters": conditions}, picture))
    assert set(ids_of(found)) == {"a", "b"}
    conditions.append({"attribute": "price", "least": 5, "most": 7})
    found = client.post("/v1/search", **form({"filters": conditions, "where": "price > 1"}, picture))
    assert ids_of(found) == ["b"]
    listed = client.get("/v1/items", params={"filters": json.dumps(conditions)}).json()
    assert [one["id"] for one in listed["items"]] == ["b"]


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([{"values": ["red"]}], "attribute"),
        ([{"attribute": "color", "least": "low"}], "least"),
        ([{"attribute": "color", "valeus": ["red"]}], "valeus"),
        ([{"attribute": "colr", "values": ["red"]}], "colr"),
        ([{"attribute": "price", "least": 5, "most": 3}], "least above most: exchange them"),
        ({}, "filters"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(client, picture, conditions, words):
    assert words in refused(client.post("/v1/search", **form({"filters": conditions}, picture)), 422)
    assert words in refused(client.get("/v1/items", params={"filters": json.dumps(conditions)}), 422)


def test_what_had_no_effect_is_said(client, item):
    told = client.post("/v1/search", json={"item": item, "text": "asdf qwerty"}).json()
    assert told["unread"] == ["asdf", "qwerty"] or told["asked"]


def test_sold_out_items_are_hidden_until_they_are_asked_for(client, picture):
    def ids(**more):
        answer = client.post("/v1/search", json={"item": "there", "k": 200, **more}).json()
        return {one["id"]: one["sold_out"] for one in answer["answers"]}, answer["sold_out_hidden"]

    assert not client.get("/v1/about").json()["has_sold_out"]
    for item_id, attributes in {
        "there": {},
        "gone": {"stock": 0},
        "later": {"availability": "preorder"},
    }.items():
        made = put(client, item_id, picture, attributes)
        assert made.json()["attributes"] == attributes
        assert made.json() == client.get(f"/v1/items/{item_id}").json()
    assert client.get("/v1/about").json()["has_sold_out"]
    found, hidden = ids()
    assert "later" in found
    assert "gone" not in found
    assert hidden == 1
    found, hidden = ids(sold_out=True)
    assert found["gone"]
    assert not found["later"]
    assert hidden == 0
    assert put(client, "gone", picture, {"stock": 3}).status_code == 200
    assert "gone" in ids()[0]
    assert put(client, "odd", picture, {"dqecir:sold_out": True}).status_code == 422


def test_a_text_alone_is_a_search(client):
    found = client.post("/v1/search", json={"text": "green top", "k": 3}).json()
    assert {answer["attributes"]["color"] for answer in found["answers"]} == {"green"}
    assert {answer["attributes"]["garment"] for answer in found["answers"]} == {"top"}
    assert found["decided_by"] == ["requested values"]
    refused(client.post("/v1/explanations", json={"text": "green top", "target": "x"}), 422)
    assert "strictness" in refused(client.post("/v1/search", json={"text": "red", "strictness": 9}), 422)


def test_earlier_turns_are_a_search_without_a_further_text(client, item):
    def asked(**request):
        return client.post("/v1/search", json={"k": 5, **request})

    single = asked(text="green top")
    assert ids_of(asked(earlier=["green top"])) == ids_of(single)
    assert asked(earlier=["green top"], text=" ").json()["decided_by"] == ["requested values"]
    kept = asked(earlier=["green top", "now in red"], text="no, not that").json()
    assert [answer["id"] for answer in kept["answers"]] == ids_of(single)
    assert ids_of(asked(item=item, earlier=["is red"])) == ids_of(asked(item=item, text="is red"))
    assert "say what to search for" in refused(asked(earlier=["green top"], text="start over"), 422)
    assert "a reference is either" in refused(asked(earlier=["", " "]), 422)
