"""What both Qdrant engines must share with the exact one: filters, candidates, and moves there and back."""

import json
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import EngineError, FilterError
from dqecir.index import candidates, engines
from dqecir.index.contract import IndexHeader, ItemBatch, SearchSettings
from dqecir.index.edge import EdgeIndex
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import And, Compare, Equal, Not, Or, parse_filter
from dqecir.index.prefetch import distributions_of
from dqecir.index.qdrant_layout import safe_name
from dqecir.index.server import IN_MEMORY, KEY, URL, ServerIndex
from dqecir.methods.scoring import score
from tests.index.contract import HEADER, batches, item

NAMES = ("a", "b.c", "not b", 'x"[]', "größe", "x-2e-")
VALUES = (
    "red",
    "RED",
    "straße",
    "STRASSE",
    "1",
    "1.0",
    "1e0",
    "-2.50",
    "0.1",
    "nan",
    "inf",
    "",
    "x=y",
    "true",
)
SCALARS = (*VALUES, 1, 2, 1.0, 0.1, -2.5, 10**17, True, None)


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """The same 150 items of all kinds of payload in every engine."""
    draw = random.Random(0)
    payloads = [
        {name: draw.choice(SCALARS) for name in draw.sample(NAMES, draw.randrange(len(NAMES)))}
        for _ in range(150)
    ]
    batch = ItemBatch([f"item{row}" for row in range(150)], torch.rand(150, 3, 8), payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL, IN_MEMORY)
        folder = tmp_path_factory.mktemp("shops")
        return [
            engine.build(folder / engine.__name__, HEADER, iter([batch]))
            for engine in (ExactIndex, EdgeIndex, ServerIndex)
        ]


leaves = st.one_of(
    st.builds(
        Equal, st.sampled_from(NAMES), st.lists(st.sampled_from(VALUES), min_size=1, max_size=3).map(tuple)
    ),
    st.builds(
        Compare,
        st.sampled_from((*NAMES, "nobody's")),
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from([-2.5, 0.1, 1.0, 1.5, 1e17]),
    ),
)
filters = st.recursive(
    leaves, lambda part: st.builds(Not, part) | st.builds(And, part, part) | st.builds(Or, part, part)
)


@settings(max_examples=150, deadline=None)
@given(where=filters)
def test_filters_mean_what_they_mean_in_the_exact_engine(shops, where):
    def found(index):
        try:
            hits = index.search(torch.ones(1, 1, 8), 200, [["item3"]], where)[0]
        except FilterError as error:
            return str(error)
        return [(hit.id, hit.payload) for hit in hits]

    right, *others = [found(index) for index in shops]
    assert all(other == right for other in others)


def test_names_of_attributes_stay_different():
    assert len({safe_name(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("engine", [EdgeIndex, ServerIndex])
def test_what_a_writer_left_undone_never_shows(engine, tmp_path, monkeypatch):
    monkeypatch.setenv(URL, IN_MEMORY)
    index = engine.build(tmp_path / "i", HEADER, batches())

    def cut(store, text):
        raise EngineError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(type(index._state.store), "write_record", cut)
        with pytest.raises(EngineError, match="cut off"):
            index.add(ItemBatch(["item0", "new", "newer"], torch.ones(3, 3, 8), [{"path": "new"}] * 3))
    for changed in (0, 1, 2):
        hits = {hit.id: hit for hit in index.search(torch.ones(1, 1, 8), 20)[0]}
        assert len(hits) == len(index) == 10 - changed
        assert hits["item0"].payload == {"path": "/0"}
        # The next generation has the number of the one that was cut off.
        index.delete([f"item{changed + 1}"])


def likelihood_batch(count: int, seed: int = 0) -> tuple[IndexHeader, ItemBatch, torch.Tensor]:
    """Items of four tokens and two distributions, and queries that ask for one value of each."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.nn.functional.normalize(torch.randn(count, 4, 8, generator=draw), dim=2)
    values = torch.randn(count, 2, 8, generator=draw).mul(3).softmax(dim=2)
    queries = torch.nn.functional.normalize(torch.randn(20, 1, 8, generator=draw), dim=2)
    wanted = torch.randn(20, 2, 8, generator=draw).mul(4).softmax(dim=2) * 0.5
    header = IndexHeader(model="m", tokens=6, size=8, score_rule="likelihood")
    batch = ItemBatch(
        [f"item{row}" for row in range(count)], torch.cat([tokens, values], dim=1), [{}] * count
    )
    return header, batch, torch.cat([queries, wanted], dim=1)


def test_few_candidates_hold_the_best_by_likelihood(tmp_path):
    header, batch, queries = likelihood_batch(2000)
    assert distributions_of(batch.tokens, "likelihood") == 2
    index = EdgeIndex.build(tmp_path / "i", header, iter([batch]))
    right = score(queries, batch.tokens.half(), "likelihood").topk(10, dim=1)
    recalls = []
    for count in (20, 200, 2000):
        index.configure(SearchSettings(candidates=count, exact_up_to=count))
        found = index.search(queries, 10)
        recalls.append(0)
        for hits, rows, best in zip(found, right.indices.tolist(), right.values.tolist(), strict=True):
            recalls[-1] += len({hit.id for hit in hits} & {f"item{row}" for row in rows})
            # Whatever is found is scored as the scorer scores it.
            assert all(hit.score <= value + 1e-5 for hit, value in zip(hits, best, strict=True))
    assert recalls[0] < recalls[1]
    assert recalls[1] > 194
    assert recalls[2] == 200


def test_a_number_of_candidates_takes_lines_in_place_of_tokens(tmp_path):
    index = EdgeIndex.build(tmp_path / "i", HEADER, batches(40))
    query = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(1))
    exact = index.search(query, 3)
    assert index.info()["candidates"] == "exact"
    for count, same in [(40, True), (1, False)]:
        index.configure(SearchSettings(candidates=count, exact_up_to=count))
        again = EdgeIndex.open(tmp_path / "i")
        assert again.info()["candidates"] == count
        assert (again.search(query, 3) == exact) is same
    index.configure(None)
    assert index.search(query, 3) == exact
    # How few are enough depends on the model.
    index.configure(SearchSettings(candidates=7, exact_up_to=9))
    other = HEADER.model_copy(update={"model": "m2"})
    assert EdgeIndex.build(tmp_path / "i", other, batches(40)).info()["candidates"] == "exact"


@pytest.mark.parametrize("rule", ["max_t", "likelihood"])
def test_where_a_filter_leaves_few_all_of_them_are_scored(tmp_path, rule):
    header, batch, queries = likelihood_batch(600)
    if rule == "max_t":
        header, queries = header.model_copy(update={"score_rule": rule}), queries[:, :1]
    payloads = [{"tenth": row % 10, "half": row % 2} for row in range(600)]
    index = EdgeIndex.build(tmp_path / "i", header, iter([replace(batch, payloads=payloads)]))
    index.configure(SearchSettings(candidates=3, exact_up_to=60))
    for where, whole in [("tenth = 1", True), ("half = 1", False)]:
        rows = torch.tensor([row for row in range(600) if row % (10 if whole else 2) == 1])
        best = score(queries, batch.tokens[rows].half(), rule).topk(3, dim=1).indices
        found = index.search(queries, 3, where=parse_filter(where))
        right = [[f"item{row}" for row in own] for own in rows[best].tolist()]
        assert ([[hit.id for hit in hits] for hits in found] == right) is whole


@pytest.mark.parametrize("rule", ["max_t", "mean_mean", "likelihood"])
def test_a_trial_writes_nothing_and_is_there_where_it_is_another_search(tmp_path, rule):
    header = HEADER.model_copy(update={"score_rule": rule})
    index = EdgeIndex.build(tmp_path / "i", header, batches(600))
    before = (tmp_path / "i" / "manifest.json").read_bytes()
    few = index.with_settings(SearchSettings(candidates=7, exact_up_to=0))
    # A mean is one product, which needs no choice; nothing is exact of a likelihood but scoring all.
    assert (few is None) is (rule == "mean_mean")
    assert (index.with_settings(None) is None) is (rule == "likelihood")
    if few is not None:
        few.refresh()
        assert few.info()["candidates"] == 7
    index.delete([f"item{row}" for row in range(100)])
    assert index.with_settings(None) is not None
    assert (tmp_path / "i" / "manifest.json").read_bytes() == before


def test_ties_beyond_the_candidates_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "SPARE", 0)
    count = 300
    names = [f"n{number}" for number in range(count)]
    same = ItemBatch(names, torch.ones(count, 3, 8), [{}] * count)
    index = EdgeIndex.build(tmp_path / "i", HEADER, iter([same]))
    assert [hit.id for hit in index.search(torch.ones(1, 1, 8), 5)[0]] == names[:5]


def test_an_index_moves_there_and_back(tmp_path, monkeypatch):
    monkeypatch.setenv(URL, IN_MEMORY)
    first = ExactIndex.build(tmp_path / "exact", HEADER, batches(300))
    first.add(item("item7", 3, price="30", odd=[1, None]))
    stations = [("edge", "edge"), ("server", "server"), ("edge2", "edge"), ("exact2", "exact")]
    folder = tmp_path / "exact"
    for name, engine in stations:
        index = engines.move_index(folder, tmp_path / name, engine)
        assert index.info()["engine"] == engine
        index.close()
        folder = tmp_path / name
        type(index).verify(folder)
    last = ExactIndex.open(folder)
    assert list(last.entries()) == list(first.entries())
    assert torch.equal(*(torch.cat([part.tokens for part in index.items()]) for index in (first, last)))
    with pytest.raises(EngineError, match="into itself"):
        engines.move_index(folder, folder, "edge")


def test_a_server_is_named_and_its_key_is_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(EngineError, match=f"no Qdrant server is known: set {URL}"):
        ServerIndex.build(tmp_path / "i", HEADER, batches())
    for address, message in [
        ("http://me:secret@localhost:6333", f"put its key into {KEY}"),
        ("localhost:6333", "is no address"),
        ("http://localhost:9", "could not do this"),
    ]:
        monkeypatch.setenv(URL, address)
        with pytest.raises(EngineError, match=message) as error:
            ServerIndex.build(tmp_path / "i", HEADER, batches())
        assert "secret" not in str(error.value)
        assert not (tmp_path / "i").exists()
    monkeypatch.setenv(URL, IN_MEMORY)
    monkeypatch.setenv(KEY, "secret")
    ServerIndex.build(tmp_path / "i", HEADER, batches())
    monkeypatch.delenv(URL)
    assert len(ServerIndex.open(tmp_path / "i")) == 10
    assert "secret" not in (tmp_path / "i" / "manifest.json").read_text()


def test_an_engine_that_is_not_there_is_said(tmp_path):
    ExactIndex.build(tmp_path / "i", HEADER, batches())
    assert isinstance(engines.open_index(tmp_path / "i"), ExactIndex)
    path = tmp_path / "i" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": "egde"}))
    with pytest.raises(EngineError, match="no engine 'egde'; did you mean 'edge'"):
        engines.open_index(tmp_path / "i")
