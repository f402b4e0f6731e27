"""The engine ``postgres`` on servers of the tests' own."""

import json
import os
import platform
import random
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import EngineError, FilterError
from dqecir.index import engines
from dqecir.index.contract import ItemBatch, SearchSettings
from dqecir.index.exact import ExactIndex
from dqecir.index.filters import parse_filter
from dqecir.index.item_preferences import CellPreference, Preference
from dqecir.index.payload_columns import Columns
from dqecir.search.audit import audit
from dqecir.search.product_search import all_views, best_products
from tests.conftest import PATIENCE
from tests.index.contract import DOT, EngineContract, batches, item
from tests.index.test_server import NAMES, SCALARS, filters
from tests.postgres_server import CountingRelay, postgres_server


@pytest.mark.parametrize("version", [16, 18])
def test_a_server_of_the_wheel_comes_back_after_a_crash(version):
    with postgres_server(version) as server:
        import psycopg

        for _ in range(2):
            with psycopg.connect(server.address("shop")) as connection:
                [(number, extension)] = connection.execute(
                    "SELECT current_setting('server_version_num')::int / 10000, extversion FROM pg_extension "
                    "WHERE extname = 'vector'"
                )
            assert number == version
            assert tuple(map(int, extension.split("."))) >= (0, 8, 4)
            server.stop(crash=True)
            server.start()
    assert not server.folder.exists()


class TestPostgres(EngineContract):
    sees_at_once = True

    @pytest.fixture(autouse=True)
    def with_engine(self, postgres_index):
        type(self).engine = postgres_index


class TestPostgres16(TestPostgres):
    @pytest.fixture(scope="class")
    @classmethod
    def postgres(cls):
        with postgres_server(16) as server:
            yield server


@pytest.fixture(scope="module")
def shop(postgres, tmp_path_factory):
    """150 items of all kinds of payload, and their payloads."""
    from dqecir.index.postgres import PostgresIndex

    draw, names = random.Random(0), (*NAMES, "A")
    payloads = [
        {name: draw.choice(SCALARS) for name in draw.sample(names, draw.randrange(len(names)))}
        for _ in range(150)
    ]
    batch = ItemBatch([f"item{row}" for row in range(150)], torch.rand(150, 1, 8), payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQECIR_DATABASE_URL", postgres.address("shop"))
        yield PostgresIndex.build(tmp_path_factory.mktemp("shop") / "index", DOT, iter([batch])), payloads


@settings(max_examples=150)
@given(where=filters)
def test_filters_mean_what_a_loop_over_payloads_finds(shop, where):
    index, payloads = shop
    where = parse_filter(str(where))

    def right():
        columns = Columns.of(payloads)
        where.check([columns])
        return [f"item{row}" for row in where.mask(columns).nonzero()[0]]

    def found(read):
        try:
            return sorted(read())
        except FilterError as error:
            return str(error)

    wanted = found(right)
    assert found(lambda: index.ids(where)) == wanted
    assert found(lambda: [hit.id for hit in index.search(torch.ones(1, 1, 8), 200, None, where)[0]]) == wanted
    if isinstance(wanted, list):
        assert index.count(where) == len(wanted)


def test_an_index_moves_there_and_back(postgres_index, tmp_path):
    first = ExactIndex.build(tmp_path / "exact", DOT, batches(2500, header=DOT))
    first.add(item("item7", 3, DOT, price="30", odd=[1, None]))
    there = engines.move_index(tmp_path / "exact", tmp_path / "there", "postgres")
    assert there.info()["engine"] == "postgres"
    back = engines.move_index(tmp_path / "there", tmp_path / "back", "exact")
    assert list(back.entries()) == list(first.entries())
    assert torch.equal(*(torch.cat([part.tokens for part in one.items()]) for one in (first, back)))


def test_two_processes_that_each_add_forty_items_leave_eighty(index, tmp_path):
    children = []
    for prefix in "ab":
        child = os.fork()
        if child == 0:
            try:
                own = engines.open_index(tmp_path / "index")
                for number in range(40):
                    own.add(item(f"{prefix}{number}", number, DOT))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(index) == len(index.ids()) == 90
    assert index.generation == 81


def test_a_new_price_leaves_the_vector_where_it_is(index, postgres):
    def places():
        """Where PostgreSQL stores each vector."""
        vectors = postgres.rows(f"SELECT oid::regclass FROM pg_class WHERE relname LIKE '{name}%vectors'")[0][
            0
        ]
        items = vectors.replace("_vectors", "_items")
        return dict(postgres.rows(f"SELECT id, v.ctid::text FROM {items} JOIN {vectors} v USING (key)"))

    name = index.info()["view"].split(".")[1]
    before = places()
    vectors = dict(zip(index.ids(), index.tokens(index.ids()), strict=True))
    index.add(
        ItemBatch(["item3", "item4"], torch.stack([vectors["item3"], vectors["item5"]]), [{"price": 2}] * 2)
    )
    assert index.ids()[-2:] == ["item3", "item4"]
    assert torch.equal(index.tokens(["item4"])[0], vectors["item5"])
    assert index.ids(parse_filter("price < 3")) == ["item3", "item4"]
    after = places()
    assert [item for item in before if before[item] != after[item]] == ["item4"]


def test_the_view_outlives_a_build_and_names_the_model(index, postgres, tmp_path):
    view = index.info()["view"]
    other = DOT.model_copy(update={"model": "another 'model' of 100%", "size": 12})
    postgres.execute(f"CREATE VIEW {view}_own AS SELECT id FROM {view}", database="shop")
    assert postgres.rows(f"SELECT DISTINCT model FROM {view}") == [("m1",)]
    built = type(index).build(tmp_path / "index", other, batches(4, width=12, header=other))
    assert built.info()["view"] == view
    rows = postgres.rows(f"SELECT id, payload->>'path', model FROM {view} ORDER BY number")
    assert rows[3] == ("item3", "/3", other.model)
    # The search of docs/engines.md, with a table of the shop's own.
    table = view.replace("dqecir_index", "products")
    postgres.execute(
        f"CREATE TABLE {table} (picture text, stock int)",
        f"INSERT INTO {table} VALUES ('item0', 2), ('item1', 0), ('item3', 5)",
        database="shop",
    )
    query = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(2))
    nearest = f"v.vector OPERATOR(ext.<#>) '{query.flatten().tolist()}'"
    found = postgres.rows(
        f"SELECT v.id, -({nearest}) FROM {view} v JOIN {table} p ON p.picture = v.id WHERE p.stock > 0 "
        f"ORDER BY {nearest} LIMIT 10"
    )
    right = [hit for hit in built.search(query, 9)[0] if hit.id in ("item0", "item3")]
    assert [item for item, _ in found] == [hit.id for hit in right]
    assert [score for _, score in found] == pytest.approx([hit.score for hit in right], abs=1e-2)
    assert len(rows) == 4


@pytest.mark.parametrize("rule", ["max_t", "likelihood"])
def test_rules_of_several_vectors_are_refused(postgres_index, tmp_path, rule):
    header = DOT.model_copy(update={"score_rule": rule, "tokens": 3})
    with pytest.raises(
        EngineError, match=f"follows the score rule dot .* not the score rule {rule}: use the"
    ):
        postgres_index.build(tmp_path / "i", header, batches(header=header))
    wide = DOT.model_copy(update={"size": 16_001})
    with pytest.raises(EngineError, match="up to width 16000, and not width 16001"):
        postgres_index.build(tmp_path / "i", wide, iter([]))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_stored_is_refused_by_name(index):
    wrong = {
        "n\0": {},
        "half \ud800": {},
        "x": {"title": "\udfff"},
        "y": {"a": {"b\0": 1}},
        "z": {"n": float("nan")},
    }
    fine = {"\\u0000": {"t": "\\u0000 \\\\ud800"}, "😀": {"😀": "😀", "deep": [[None, {"": 1e300}]]}}
    with pytest.raises(EngineError, match="cannot store") as error:
        index.add(ItemBatch([*fine, *wrong], torch.ones(7, 1, 8), [*fine.values(), *wrong.values()]))
    assert all(ascii(name) in str(error.value) for name in wrong)
    assert not any(ascii(name) in str(error.value) for name in fine)
    assert len(index) == 10
    index.add(ItemBatch([*fine], torch.ones(2, 1, 8), [*fine.values()]))
    assert index.payloads([*fine, *wrong]) == fine
    assert index.delete([*wrong, "😀"]) == 1
    assert len(index.search(torch.ones(1, 1, 8), 20, [[*wrong, *fine]])[0]) == 10


def test_every_fault_of_the_database_is_one_sentence(postgres_index, postgres, tmp_path, monkeypatch):
    def refused(address, schema="public"):
        monkeypatch.setenv("DQECIR_DATABASE_URL", address)
        monkeypatch.setenv("DQECIR_DATABASE_SCHEMA", schema)
        with pytest.raises(EngineError) as error:
            postgres_index.build(tmp_path / "i", DOT, batches(header=DOT))
        assert "s3cret" not in str(error.value)
        assert "hidden" not in str(error.value)
        assert not (tmp_path / "i").exists()
        return str(error.value)

    assert "CREATE EXTENSION vector" in refused(postgres.address("postgres"))
    assert "cannot be reached (Connection refused): check the address, and that the server runs" in refused(
        "postgresql://me:s3cret@localhost:9/shop"
    )
    assert "cannot be reached (does not exist): create the database or the role" in refused(
        postgres.address("nothing")
    )
    assert "%40" in refused("postgres//me:s3cret@localhost/shop")
    assert "cannot be reached" in refused("postgresql://me:s3cret@hidden@localhost/shop")
    assert "cannot be reached" in refused("postgresql://me:s3cret/hidden@localhost/shop")
    assert "or name another in DQECIR_DATABASE_SCHEMA" in refused(postgres.address("shop"), "nothing")
    assert "DQECIR_DATABASE_SCHEMA" in refused(postgres.address("shop"), 'x"; DROP')


def test_an_index_of_another_database_says_where_to_look(index, postgres, monkeypatch):
    postgres.execute("CREATE DATABASE other")
    postgres.execute("CREATE EXTENSION vector", database="other")
    for address in (postgres.address("other"), postgres.address("shop")):
        monkeypatch.setenv("DQECIR_DATABASE_URL", address)
        with pytest.raises(EngineError, match="name its database in DQECIR_DATABASE_URL, or"):
            index.refresh()
        table = os.environ["DQECIR_DATABASE_SCHEMA"] + ".dqecir_indexes"
        postgres.execute(f"DELETE FROM {table}", database="shop")


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith("dqecir.index.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        EngineError, match=r"needs psycopg, which is not installed: pip install 'dqecir\[postgres\]'"
    ):
        engines.engine("postgres")


def test_the_folder_holds_no_address(index, tmp_path, database):
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert sorted(manifest) == ["engine", "format", "name", "namespace"]
    assert manifest["name"].startswith("dqecir_index_")


def test_a_running_build_refuses_others_and_a_killed_one_does_not(index, tmp_path, dqecir, database):
    def slow():
        yield from batches(4, header=DOT)
        for refused in (lambda: index.add(item("new", 1, DOT)), lambda: index.delete(["item1"]), again):
            with pytest.raises(EngineError, match=f"is being built on {platform.node()} since 20"):
                refused()
        # A read-only call still answers.
        assert len(index) == 10
        assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"
        yield from batches(4, header=DOT, prefix="more")

    def again():
        type(index).build(tmp_path / "index", DOT, batches(header=DOT))

    def killed():
        yield from batches(4, header=DOT)
        os.kill(os.getpid(), signal.SIGKILL)

    assert len(type(index).build(tmp_path / "index", DOT, slow())) == 8
    for folder in ("index", "never"):
        child = os.fork()
        if child == 0:
            type(index).build(tmp_path / folder, DOT, killed())
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    index.add(item("new", 1, DOT))
    assert len(index) == 9
    out = dqecir("index", "leftovers")[1].splitlines()
    assert [line.split("dqecir_")[1][:5] for line in out] == ["index", "never"]
    assert dqecir("index", "leftovers", "--index", tmp_path / "never", "--remove")[1].count("removed") == 3
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"
    assert len(index) == 9
    again()
    assert len(index) == 10


@pytest.mark.parametrize("is_renamed", [False, True])
def test_a_build_killed_at_the_rename_of_its_folder_is_found(
    is_renamed, postgres_index, tmp_path, dqecir, postgres, monkeypatch
):
    folder, rename = tmp_path / "index", Path.replace

    def killed(path, target):
        if target == folder and not is_renamed:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(path, target)
        if target == folder:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(Path, "replace", killed)
        postgres_index.build(folder, DOT, batches(header=DOT))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert dqecir("index", "leftovers")[1].count("left by an interrupted build") == 1
    if is_renamed:
        assert len(engines.open_index(folder)) == 10
    else:
        assert dqecir("index", "leftovers", "--remove", "--index", folder)[1].count("removed") == 2
        schema = os.environ["DQECIR_DATABASE_SCHEMA"]
        assert postgres.rows(f"SELECT * FROM {schema}.dqecir_indexes") == []
        relations = "SELECT relname FROM pg_class WHERE relname ~ '^dqecir_index_'"
        assert postgres.rows(f"{relations} AND relnamespace = '{schema}'::regnamespace") == []
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"


def test_an_interrupt_after_the_switch_keeps_the_new_items(index, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dqecir.index.postgres_building.stores_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        type(index).build(index.folder, DOT, batches(4, header=DOT))
    assert len(index) == len(index.ids()) == 4
    index.add(item("new", 1, DOT))


def uneven(count: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    """Vectors [N, 1, D] that lie to one side of the origin and differ in length."""
    draw = torch.Generator().manual_seed(seed)
    lengths = 0.7 + 0.6 * torch.rand(count, 1, 1, generator=draw)
    return lengths * torch.nn.functional.normalize(torch.randn(count, 1, width, generator=draw) + 1, dim=2)


@pytest.fixture
def large(postgres_index, tmp_path, monkeypatch):
    """2,000 items in the engine, and the same in the exact one."""
    monkeypatch.setattr("dqecir.index.postgres.FEW", 100)
    tokens = uneven(2000)
    payloads = [{"tenth": str(row % 10), "n": row, "rare": str(row % 1000)} for row in range(2000)]
    header = DOT.model_copy(update={"size": 16})
    batch = ItemBatch([str(row) for row in range(2000)], tokens, payloads)
    return [
        engine.build(tmp_path / engine.__name__, header, iter([batch]))
        for engine in (postgres_index, ExactIndex)
    ]


def recall(index, exact, where=None, k=10) -> float:
    queries = uneven(50, seed=9)
    without = [[str(row), "nobody"] for row in range(50)]
    found, right = [
        [{hit.id for hit in hits} for hits in one.search(queries, k, without, where)]
        for one in (index, exact)
    ]
    return sum((len(a & b) / len(b) if b else not a) for a, b in zip(found, right, strict=True)) / 50


def test_a_search_of_products_takes_few_round_trips(index, postgres, monkeypatch):
    views = [f"view{row}" for row in range(60)]
    payloads = [{PRODUCT: f"p{row // 3}", "path": f"{row}.png"} for row in range(60)]
    index.add(ItemBatch(views, uneven(60, 8), payloads))
    with TemporaryDirectory(prefix="pg-") as folder:
        relay = CountingRelay(postgres, Path(folder))
        monkeypatch.setenv("DQECIR_DATABASE_URL", relay.address)
        own, query = engines.open_index(index.folder), uneven(1, 8, seed=1)

        def trips(call) -> int:
            call()
            before = relay.round_trips
            call()
            return relay.round_trips - before

        for one in (
            lambda: own.search(query, 9, [["view3"]], parse_filter(f"{PRODUCT} = p1")),
            lambda: own.page(9, "view5"),
            lambda: (own.payloads(views), own.has_products),
            lambda: own.views(["p1", "p2"]),
            lambda: own.generation,
        ):
            assert trips(one) == 1
        without = trips(lambda: all_views(own, ["view4"]))
        found = trips(lambda: best_products(own, query, 9, [["view4"]]))
        assert (without, found) == (2, 2)
        # A change of others is found by one more attempt.
        index.add(item("new", 1, DOT, another="x"))
        assert own.ids(parse_filter("another = x")) == ["new"]
        again = type(index).build(index.folder, DOT, index.items())
        assert own.ids() == again.ids()
        relay.close()


def test_readers_go_on_while_builds_replace_the_tables(index):
    wrong, done = [], threading.Event()

    def read(reads):
        own = engines.open_index(index.folder)
        try:
            while not done.is_set():
                for one in reads:
                    assert one(own) in (4, 10)
        except Exception as error:
            wrong.append(error)

    query = torch.ones(1, 1, 8)
    ways = [
        [lambda own: len(list(own.entries())), lambda own: sum(len(part.ids) for part in own.items())],
        [lambda own: len(own.search(query, 20)[0]), lambda own: len(own.page(20).entries)],
    ]
    threads = [threading.Thread(target=read, args=(reads,)) for reads in ways]
    for thread in threads:
        thread.start()
    for count in (4, 10) * 6:
        type(index).build(index.folder, DOT, batches(count, header=DOT))
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
    assert len(index) == 10


def test_a_graph_finds_what_a_scan_finds(large, postgres):
    index, exact = large
    assert recall(index, exact) == 1
    index.configure(SearchSettings(candidates=400, exact_up_to=100))
    for where in (None, "tenth = 3", "not tenth = 3", "n > 1500", "rare = 7", "rare = 7 and n < 0"):
        assert recall(index, exact, where and parse_filter(where)) >= 0.99, where
    assert recall(index, exact, k=1500) >= 0.999
    assert recall(index, exact, parse_filter("tenth = 4"), k=500) >= 0.999


def test_preferences_count_for_all_items_that_are_scanned(large):
    index, exact = large
    preferred = Preference(
        (CellPreference("tenth", {"3": 0.4}, -0.3), CellPreference("rare", {"3": 0.5, "8": 9.0, "9": 9.0}))
    )
    queries, prefer = uneven(20, seed=9), [preferred, Preference()] * 10
    for where in (None, parse_filter("n > 1000")):
        found, right = ([one.search(queries, 300, None, where, prefer)] for one in (index, exact))
        for own, hits in zip(*found, *right, strict=True):
            assert [hit.id for hit in own] == [hit.id for hit in hits]
            assert [hit.score for hit in own] == pytest.approx([hit.score for hit in hits])


def test_an_audit_measures_scans_and_graphs(large):
    report = audit(large[0], None, count=10, numbers=(100, 400))
    tried = [(row.settings and row.settings.candidates, row.limit.share) for row in report.rows]
    assert tried == [(count, share) for count in (None, 100, 400) for share in (1.0, 0.1)]
    assert all(row.recall == 1 for row in report.rows[:2])
    assert all(row.recall > 0.95 for row in report.rows)
    assert large[0].with_settings(SearchSettings(candidates=1001, exact_up_to=0)) is None
    with pytest.raises(EngineError, match="at most 1000 candidates"):
        large[0].configure(SearchSettings(candidates=1001, exact_up_to=0))


@pytest.fixture
def graphs(postgres):
    """Return the names of the graphs in the test's schema."""
    relations = (
        "SELECT relname FROM pg_class WHERE relname ~ '_(near|far)$' AND relnamespace = '{}'::regnamespace"
    )
    return lambda: postgres.rows(relations.format(os.environ["DQECIR_DATABASE_SCHEMA"]))


def test_an_audit_leaves_a_graph_only_where_it_is_applied(large, graphs, monkeypatch):
    index, exact = large
    audit(index, None, count=3, numbers=(100,))
    assert (graphs(), index.info()["graph"]) == ([], None)
    monkeypatch.setattr("dqecir.search.audit.QUICK", 0.0)
    monkeypatch.setattr("dqecir.search.audit.recommendation", lambda rows, _: (rows[-1].settings, ""))
    audit(index, None, count=3, numbers=(100,), apply=True)
    assert index.info()["quick"]["candidates"] == 100
    assert len(graphs()) == 2
    kept = index.info()["graph"]
    audit(index, None, count=3, numbers=(100, 400))
    assert (index.info()["graph"], len(graphs())) == (kept, 2)
    assert recall(index, exact) >= 0.95


@pytest.mark.parametrize("place", ["search.audit.best_products", "index.postgres_building.add_graph"])
def test_an_interrupted_audit_leaves_nothing(place, large, graphs, monkeypatch, dqecir):
    index, _ = large
    module, _, name = f"dqecir.{place}".rpartition(".")
    work = getattr(import_module(module), name)

    def until(stop):
        """Do the work, and stop where the first graph was made."""

        def stopped(*arguments):
            done = work(*arguments)
            if graphs():
                stop()
            return done

        monkeypatch.setattr(f"{module}.{name}", stopped)
        audit(index, None, count=3, numbers=(100,))

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until(interrupt)
    assert (graphs(), index.info()["graph"]) == ([], None)
    child = os.fork()
    if child == 0:
        until(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert len(graphs()) == 2
    assert dqecir("index", "leftovers", "--remove")[1].count("removed") == 1
    assert graphs() == []
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"


def test_a_running_audit_leaves_no_leftovers_and_refuses_builds(large, dqecir):
    index, exact = large
    assert (
        len(index.with_settings(SearchSettings(candidates=100, exact_up_to=0)).search(uneven(1), 5)[0]) == 5
    )
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"
    with pytest.raises(EngineError, match="is being audited, or its graph made: try again"):
        type(index).build(index.folder, index.header, exact.items())
    index.delete(["0"])
    index.end_trials()
    assert len(type(index).build(index.folder, index.header, exact.items())) == 2000


def test_wide_vectors_are_scanned(postgres_index, tmp_path):
    header = DOT.model_copy(update={"size": 4000})
    index = postgres_index.build(tmp_path / "i", header, batches(8, width=4000, header=header))
    tokens = index.tokens(["item5"])
    assert index.search(tokens.float(), 1)[0][0].id == "item5"
    assert index.with_settings(SearchSettings(candidates=10, exact_up_to=0)) is None
    with pytest.raises(
        EngineError, match="at most 3999 numbers, so every item of this index is compared: set no"
    ):
        index.configure(SearchSettings(candidates=10, exact_up_to=0))


def test_a_graph_stays_right_while_items_change_and_grow_beyond_it(large):
    index, exact = large
    index.configure(SearchSettings(candidates=400, exact_up_to=100))
    for one in large:
        one.add(ItemBatch(["far", "near"], torch.cat([300 * uneven(1, seed=1), uneven(1, seed=2)]), [{}, {}]))
        one.delete([str(row) for row in range(0, 2000, 2)])
        one.add(ItemBatch([str(row) for row in range(300)], uneven(300, seed=3), [{"n": 1}] * 300))
    assert recall(index, exact) >= 0.99
    [hits] = index.search(uneven(1, seed=1), 1)
    assert hits[0].id == "far"
    outgrown = index.info()["graph"]
    index.configure(SearchSettings(candidates=500, exact_up_to=100))
    assert index.info()["graph"] != outgrown
    assert recall(index, exact) >= 0.99
    kept = index.info()["graph"]
    index.configure(SearchSettings(candidates=400, exact_up_to=100))
    assert index.info()["graph"] == kept
    # A build by the same model keeps the settings, and makes a graph of its own.
    again = type(index).build(index.folder, index.header, exact.items())
    assert again.info()["quick"] == index.info()["quick"]
    assert again.info()["graph"] not in (kept, None)
    assert recall(again, exact) >= 0.99
    again.configure(None)
    assert (again.info()["quick"], again.info()["graph"]) == (None, None)
    assert recall(again, exact) == 1
