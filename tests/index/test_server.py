"""The engine ``server``: the contract, and what it shares with the exact one: filters, scores, moves.

Qdrant's client plays server in these tests; the contract also runs on a real one where there is one.
"""

import json
import os
import random
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import EngineError, FilterError
from dqecir.index import candidates, engines
from dqecir.index.contract import IndexHeader, ItemBatch, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import And, Compare, Equal, Filter, Not, Or, parse_filter
from dqecir.index.prefetch import distributions_of
from dqecir.index.qdrant_collection import IN_MEMORY, KEY, URL, Collection
from dqecir.index.qdrant_points import has_item, safe_name
from dqecir.index.server import ServerIndex
from dqecir.methods.scoring import score
from tests.index.contract import HEADER, EngineContract, batches, item

REAL = os.environ.get(URL)

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
SCALARS = (*VALUES, 1, 2, 1.0, 0.1, -2.5, 10**17, True, None, ["red", "straße"], ["-2.50", "2"], [0.5, 1.5])


@pytest.fixture
def in_memory(monkeypatch):
    monkeypatch.setenv(URL, IN_MEMORY)


@pytest.mark.usefixtures("in_memory")
class TestServerInTheClient(EngineContract):
    engine = ServerIndex

    @pytest.fixture(autouse=True)
    def one_thread_at_a_time(self, monkeypatch):
        """Unlike a server, the client's own memory is not made for more."""
        one, connected = RLock(), Collection._client

        @contextmanager
        def alone(collection):
            with one, connected(collection) as client:
                yield client

        monkeypatch.setattr(Collection, "_client", alone)


@pytest.mark.skipif(REAL is None, reason=f"no Qdrant server: set {URL} to have it tested")
class TestServer(EngineContract):
    engine = ServerIndex

    @pytest.fixture(autouse=True)
    def clean(self):
        """Nothing stays on the server."""
        before = self.collections()
        yield
        for name in self.collections() - before:
            Collection(REAL, name).drop()

    @staticmethod
    def collections() -> set[str]:
        with Collection(REAL, "any")._client() as client:
            return {found.name for found in client.get_collections().collections}


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """The same 150 items of all kinds of payload in both engines."""
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
            for engine in (ExactIndex, ServerIndex)
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


def several(part: st.SearchStrategy[Filter]) -> st.SearchStrategy[tuple[Filter, ...]]:
    return st.lists(part, min_size=2, max_size=3).map(tuple)


filters = st.recursive(
    leaves, lambda part: st.builds(Not, part) | st.builds(And, several(part)) | st.builds(Or, several(part))
)


@settings(max_examples=150)
@given(where=filters)
def test_filters_mean_what_they_mean_in_the_exact_engine(shops, where):
    def found(index):
        try:
            hits = index.search(torch.ones(1, 1, 8), 200, [["item3"]], where)[0]
        except FilterError as error:
            return str(error)
        return [(hit.id, hit.payload) for hit in hits]

    right, other = [found(index) for index in shops]
    assert other == right


def test_names_of_attributes_stay_different():
    assert len({safe_name(name) for name in NAMES}) == len(NAMES)


@pytest.mark.usefixtures("in_memory")
def test_what_a_writer_left_undone_never_shows(tmp_path, monkeypatch):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())

    def cut(collection, text):
        raise EngineError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Collection, "write_record", cut)
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


@pytest.mark.usefixtures("in_memory")
def test_few_candidates_hold_the_best_by_likelihood(tmp_path):
    header, batch, queries = likelihood_batch(800)
    assert distributions_of(batch.tokens, "likelihood") == 2
    index = ServerIndex.build(tmp_path / "i", header, iter([batch]))
    right = score(queries, batch.tokens.half(), "likelihood").topk(10, dim=1)
    recalls = []
    for count in (20, 200, 800):
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


@pytest.mark.usefixtures("in_memory")
def test_a_number_of_candidates_takes_lines_in_place_of_tokens(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches(40))
    query = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(1))
    exact = index.search(query, 3)
    assert index.info()["candidates"] == "exact"
    for count, same in [(40, True), (1, False)]:
        index.configure(SearchSettings(candidates=count, exact_up_to=count))
        again = ServerIndex.open(tmp_path / "i")
        assert again.info()["candidates"] == count
        assert (again.search(query, 3) == exact) is same
    index.configure(None)
    assert index.search(query, 3) == exact
    # How few are enough depends on the model.
    index.configure(SearchSettings(candidates=7, exact_up_to=9))
    other = HEADER.model_copy(update={"model": "m2"})
    assert ServerIndex.build(tmp_path / "i", other, batches(40)).info()["candidates"] == "exact"


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("rule", ["max_t", "likelihood"])
def test_where_a_filter_leaves_few_all_of_them_are_scored(tmp_path, rule):
    header, batch, queries = likelihood_batch(600)
    if rule == "max_t":
        header, queries = header.model_copy(update={"score_rule": rule}), queries[:, :1]
    payloads = [{"tenth": row % 10, "half": row % 2} for row in range(600)]
    index = ServerIndex.build(tmp_path / "i", header, iter([replace(batch, payloads=payloads)]))
    index.configure(SearchSettings(candidates=3, exact_up_to=60))
    for where, whole in [("tenth = 1", True), ("half = 1", False)]:
        rows = torch.tensor([row for row in range(600) if row % (10 if whole else 2) == 1])
        best = score(queries, batch.tokens[rows].half(), rule).topk(3, dim=1).indices
        found = index.search(queries, 3, where=parse_filter(where))
        right = [[f"item{row}" for row in own] for own in rows[best].tolist()]
        assert ([[hit.id for hit in hits] for hits in found] == right) is whole


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("rule", ["max_t", "mean_mean", "likelihood"])
def test_a_trial_writes_nothing_and_is_there_where_it_is_another_search(tmp_path, rule):
    header = HEADER.model_copy(update={"score_rule": rule})
    index = ServerIndex.build(tmp_path / "i", header, batches(600))
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


@pytest.mark.usefixtures("in_memory")
def test_ties_beyond_the_candidates_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(candidates, "SPARE", 0)
    count = 300
    names = [f"n{number}" for number in range(count)]
    same = ItemBatch(names, torch.ones(count, 3, 8), [{}] * count)
    index = ServerIndex.build(tmp_path / "i", HEADER, iter([same]))
    assert [hit.id for hit in index.search(torch.ones(1, 1, 8), 5)[0]] == names[:5]


@pytest.mark.usefixtures("in_memory")
def test_an_index_moves_there_and_back(tmp_path):
    first = ExactIndex.build(tmp_path / "exact", HEADER, batches(300))
    first.add(item("item7", 3, price="30", odd=[1, None]))
    stations = [("server", "server"), ("server2", "server"), ("exact2", "exact")]
    folder = tmp_path / "exact"
    for name, engine in stations:
        index = engines.move_index(folder, tmp_path / name, engine)
        assert index.info()["engine"] == engine
        folder = tmp_path / name
    last = ExactIndex.open(folder)
    assert list(last.entries()) == list(first.entries())
    assert torch.equal(*(torch.cat([part.tokens for part in index.items()]) for index in (first, last)))
    with pytest.raises(EngineError, match="into itself"):
        engines.move_index(folder, folder, "exact")


def test_a_server_is_named_and_its_key_is_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.delenv(URL, raising=False)
    with pytest.raises(EngineError, match=f"the address of the Qdrant server is missing: set {URL}"):
        ServerIndex.build(tmp_path / "i", HEADER, batches())
    for address, message in [
        ("http://me:secret@localhost:6333", f"put its key into {KEY}"),
        ("localhost:6333", "is not the address"),
        ("http://localhost:9", "failed: "),
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
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": "sever"}))
    with pytest.raises(EngineError, match="no engine 'sever'; did you mean 'server'"):
        engines.open_index(tmp_path / "i")


@pytest.mark.usefixtures("in_memory")
def test_a_replaced_collection_stays_until_the_next_build(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    ServerIndex.build(tmp_path / "i", HEADER, batches(4))
    first, second = index.info()["collection"], ServerIndex.open(tmp_path / "i").info()["collection"]
    assert len(index.search(torch.ones(1, 1, 8), 20)[0]) == 10
    index.refresh()
    assert len(index) == 4
    ServerIndex.build(tmp_path / "i", HEADER, batches(4))
    third = ServerIndex.open(tmp_path / "i").info()["collection"]
    base = first.rpartition("-")[0]
    assert set(Collection(IN_MEMORY, base).siblings(base)) == {second, third}


@pytest.mark.usefixtures("in_memory")
def test_an_index_of_another_version_is_refused_and_built_again(tmp_path):
    ServerIndex.build(tmp_path / "i", HEADER, batches())
    manifest = tmp_path / "i" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(EngineError, match="another version: build it again"):
        ServerIndex.open(tmp_path / "i")
    assert len(ServerIndex.build(tmp_path / "i", HEADER, batches(4))) == 4


@pytest.mark.usefixtures("in_memory")
def test_an_index_whose_collection_is_gone_is_refused(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    Collection(IN_MEMORY, index.info()["collection"]).drop()
    with pytest.raises(EngineError, match=r"no longer has the points of .*: build the index again"):
        ServerIndex.open(tmp_path / "i")


@pytest.mark.usefixtures("in_memory")
def test_old_generations_are_cleared_away_and_who_is_behind_goes_on(tmp_path):
    index = ServerIndex.build(tmp_path / "i", HEADER, batches())
    behind, reader = ServerIndex.open(tmp_path / "i"), ServerIndex.open(tmp_path / "i")
    for _ in range(20):
        index.add(item("item0", 5))
    held = Collection(IN_MEMORY, index.info()["collection"]).count(has_item(["item0"]))
    assert held <= 18
    hits = behind.search(torch.ones(1, 1, 8), 20)[0]
    assert sorted(hit.id for hit in hits) == sorted(f"item{number}" for number in range(10))
    assert behind.generation == 21
    assert torch.equal(reader.tokens(["item0"]), index.tokens(["item0"]))
