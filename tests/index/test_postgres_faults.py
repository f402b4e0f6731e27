"""The engine ``postgres`` with killed writers, a fallen server, a full disk, and missing rights."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dqecir.errors import EngineError, FilterError
from dqecir.index import engines
from dqecir.index.contract import ItemBatch, SearchSettings
from dqecir.index.filters import parse_filter
from dqecir.index.payload_columns import Columns
from tests.conftest import PATIENCE
from tests.index.contract import DOT, batches, item
from tests.index.test_kills import each_call
from tests.postgres_server import NOBODY, PostgresServer, binaries_of_wheel, postgres_server

DEBIAN = Path("/usr/lib/postgresql/15")
KILLS = 12


@pytest.fixture
def own_server(monkeypatch):
    """A server that the test may let fall."""
    with postgres_server() as server:
        monkeypatch.setenv("DQECIR_DATABASE_URL", server.address("shop"))
        monkeypatch.delenv("DQECIR_DATABASE_SCHEMA", raising=False)
        yield server


def pair(number: int, version: int) -> ItemBatch:
    """Two items that are always written together."""
    tokens = torch.full((2, 1, 8), float(version))
    return ItemBatch([f"a{number}", f"b{number}"], tokens, [{"version": version}] * 2)


def write_until_killed(folder: Path, version: int, calls: int, pipe: int) -> None:
    """Report each change before and after it; be killed after so many calls of functions."""
    left, draw = iter(range(calls)), random.Random(version)
    own = engines.open_index(folder)
    while True:
        version += 1
        number, is_deleted = draw.randrange(5), draw.random() < 0.3
        os.write(pipe, f"{number} {0 if is_deleted else version}\n".encode())
        each_call(lambda: next(left, None) is None and os.kill(os.getpid(), signal.SIGKILL))
        if is_deleted:
            own.delete([f"a{number}", f"b{number}"])
        else:
            own.add(pair(number, version))
        each_call(lambda: None)
        os.write(pipe, b"done\n")


def test_what_is_acknowledged_survives_killed_writers(index, tmp_path):
    draw, there, version = random.Random(0), {}, 0
    for _ in range(KILLS):
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                write_until_killed(tmp_path / "index", version, draw.randrange(50, 9000), theirs)
            finally:
                os._exit(1)
        os.close(theirs)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with os.fdopen(ours) as said:
            lines = said.read().splitlines()
        changes = [tuple(map(int, line.split())) for line in lines if line != "done"]
        there.update(changes[: lines.count("done")])
        found = {number: index.payload(f"a{number}") for number in range(5)}
        assert found == {number: index.payload(f"b{number}") for number in range(5)}
        seen = {number: payload["version"] if payload else 0 for number, payload in found.items()}
        expected = [there, there | dict(changes)]
        assert seen in [{number: one.get(number, 0) for number in range(5)} for one in expected]
        there, version = seen, max(seen.values()) + 100
        assert len(index) == len(index.ids()) == 10 + 2 * sum(map(bool, seen.values()))
        hits = {hit.id: hit.score for hit in index.search(torch.ones(1, 1, 8), 30)[0]}
        assert all(hits[f"a{number}"] == 8 * own for number, own in seen.items() if own)


def test_a_server_that_falls_in_a_search_is_missed_in_one_sentence_and_comes_back(own_server, tmp_path):
    many = ItemBatch([str(row) for row in range(20_000)], torch.rand(20_000, 1, 8), [{}] * 20_000)
    own = engines.engine("postgres").build(tmp_path / "i", DOT, iter([many]))
    searched, ended, said = threading.Event(), threading.Event(), []

    def search():
        while not ended.is_set():
            try:
                assert len(own.search(torch.ones(8, 1, 8), 5)) == 8
            except Exception as error:
                said.append(error)
                ended.set()
            searched.set()

    thread = threading.Thread(target=search)
    thread.start()
    assert searched.wait(PATIENCE)
    own_server.stop(crash=True)
    assert ended.wait(PATIENCE)
    thread.join(PATIENCE)
    assert isinstance(said[0], EngineError), said
    assert "database" in str(said[0])
    for wrong in (lambda: own.add(item("new", 1, DOT)), lambda: len(own), lambda: own.page(3)):
        with pytest.raises(EngineError, match="cannot be reached"):
            wrong()
    own_server.start()
    assert len(own) == 20_000
    own.add(item("new", 1, DOT))
    assert len(own.search(torch.ones(2, 1, 8), 5)) == 2


def test_a_server_that_falls_in_a_build_keeps_the_old_index(own_server, tmp_path, dqecir):
    build = engines.engine("postgres").build
    own = build(tmp_path / "i", DOT, batches(header=DOT))

    def broken():
        yield from batches(4, header=DOT, prefix="other")
        own_server.stop(crash=True)
        yield from batches(4, header=DOT, prefix="more")

    with pytest.raises(EngineError, match="connection to the database broke"):
        build(tmp_path / "i", DOT, broken())
    own_server.start()
    assert own.ids() == [f"item{number}" for number in range(10)]
    own.add(item("new", 1, DOT))
    assert "dqecir_i_" in dqecir("index", "leftovers", "--remove")[1]
    assert "no interrupted build" in dqecir("index", "leftovers")[1]
    assert len(own) == 11
    assert len(build(tmp_path / "i", DOT, batches(4, header=DOT))) == 4


def test_a_role_that_may_only_read_reads(index, postgres, database, monkeypatch):
    schema = os.environ["DQECIR_DATABASE_SCHEMA"]
    role = f"reader_{schema}"
    postgres.execute(
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {schema}, ext TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
        database="shop",
    )
    monkeypatch.setenv("DQECIR_DATABASE_URL", postgres.address("shop", role))
    reader = engines.open_index(index.folder)
    assert len(reader.search(torch.ones(1, 1, 8), 20)[0]) == 10
    assert reader.page(3).next == "item2"
    for refused in (
        lambda: reader.add(item("new", 1, DOT)),
        lambda: reader.delete(["item1"]),
        lambda: type(index).build(index.folder, DOT, batches(header=DOT)),
    ):
        with pytest.raises(EngineError, match=r"role may not do this in the database \(permission denied"):
            refused()
    monkeypatch.setenv("DQECIR_DATABASE_URL", postgres.address("shop"))
    type(index).build(index.folder, DOT, batches(4, header=DOT))
    monkeypatch.setenv("DQECIR_DATABASE_URL", postgres.address("shop", role))
    assert len(reader) == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_one_sentence_and_nothing_is_torn(tmp_path, monkeypatch):
    disk = Path(tempfile.mkdtemp(prefix="pg-disk-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=False).returncode:
        disk.rmdir()
        pytest.skip("no small disk can be mounted here")
    try:
        with postgres_server(data=disk, max_wal_size="32MB", wal_init_zero="off") as server:
            monkeypatch.setenv("DQECIR_DATABASE_URL", server.address("shop"))
            monkeypatch.delenv("DQECIR_DATABASE_SCHEMA", raising=False)
            own = engines.engine("postgres").build(tmp_path / "i", DOT, batches(header=DOT))
            added, draw = 10, random.Random(0)
            with pytest.raises(EngineError, match=r"disk .* is full|connection .* broke|cannot be reached"):
                for number in range(1000):
                    text = draw.randbytes(1 << 20).hex()
                    own.add(ItemBatch([f"new{number}"], torch.ones(1, 1, 8), [{"text": text}]))
                    added += 1
            subprocess.run(["mount", "-o", "remount,size=96m", disk], check=True)
            server.stop(crash=True)
            server.start()
            assert len(own) == len(own.ids()) == added
            own.add(item("item0", 1, DOT))
            assert own.ids()[-1] == "item0"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
        disk.rmdir()


texts = st.text(max_size=8) | st.sampled_from(
    ["%s", "%(a)s", "';--", '"', "\\", "{}", "\u0130", "a\tb", "\x7f"]
)
payloads = st.dictionaries(
    texts, st.one_of(texts, st.none(), st.booleans(), st.integers(), st.floats(), st.lists(texts)), max_size=4
)


@settings(max_examples=40)
@given(items=st.dictionaries(texts, payloads, min_size=1, max_size=4), wanted=texts, name=texts)
def test_hostile_ids_payloads_and_filters_come_back_as_they_are(hostile, items, wanted, name):
    hostile.delete(hostile.ids())
    batch = ItemBatch([*items], torch.ones(len(items), 1, 8), [*items.values()])
    try:
        hostile.add(batch)
    except EngineError as error:
        assert "cannot store" in str(error) or "empty id" in str(error)
        return
    assert list(hostile.entries()) == list(items.items())
    assert hostile.payloads([*items, wanted]) == items
    name = next((one for payload in items.values() for one in payload), name)
    quoted = ['"' + one.replace('"', '""') + '"' for one in (name, wanted)]
    where = parse_filter("{} = {}".format(*quoted))
    columns = Columns.of([*items.values()])
    try:
        where.check([columns])
    except FilterError:
        return
    assert hostile.ids(where) == [one for one, mask in zip(items, where.mask(columns), strict=True) if mask]
    [hits] = hostile.search(torch.ones(1, 1, 8), 9, [[next(iter(items)), wanted]])
    assert [hit.id for hit in hits] == [one for one in list(items)[1:] if one != wanted]


@pytest.fixture(scope="module")
def hostile(postgres, tmp_path_factory):
    from dqecir.index.postgres import PostgresIndex

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQECIR_DATABASE_URL", postgres.address("shop"))
        yield PostgresIndex.build(tmp_path_factory.mktemp("hostile") / "i", DOT, batches(header=DOT))


@pytest.mark.skipif(
    not (DEBIAN / "bin" / "postgres").is_file() or shutil.which("openssl") is None,
    reason=f"no PostgreSQL of Debian at {DEBIAN}, or no openssl",
)
def test_a_password_and_tls_are_libpqs_and_stay_secret(tmp_path, monkeypatch):
    binaries_of_wheel(18)  # Skips where psycopg is missing.
    from dqecir.index.postgres import PostgresIndex

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = PostgresServer(DEBIAN, listen_addresses="127.0.0.1", port=port, ssl="on")
    try:
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        files = [server.data / "server.key", server.data / "server.crt"]
        new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        out = ["-keyout", files[0], "-out", files[1]]
        subprocess.run([*new, *out, "-days", "2", *names], check=True, capture_output=True)
        for file in files if os.geteuid() == 0 else ():
            os.chown(file, NOBODY, NOBODY)
        shutil.copy(files[1], tmp_path / "root.crt")
        rules = "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
        (server.data / "pg_hba.conf").write_text(rules)
        server.start()
        server.execute("CREATE ROLE clerk LOGIN PASSWORD 's3cret@/x'")

        def said(password: str, **settings: str) -> str:
            more = "&".join(f"{name}={value}" for name, value in settings.items())
            url = f"postgresql://clerk:{password}@localhost:{port}/postgres?{more}"
            monkeypatch.setenv("DQECIR_DATABASE_URL", url)
            with pytest.raises(EngineError) as error:
                PostgresIndex.build(tmp_path / "i", DOT, batches(header=DOT))
            assert "s3cret" not in str(error.value)
            return str(error.value)

        checked = {"sslmode": "verify-full", "sslrootcert": str(tmp_path / "root.crt")}
        # Here the connection stands, and Debian's PostgreSQL has no pgvector.
        assert "CREATE EXTENSION vector" in said("s3cret%40%2Fx", **checked)
        assert "(password authentication failed): check the role and its password" in said(
            "s3cret2", **checked
        )
        assert "(no pg_hba.conf entry): let pg_hba.conf of the server admit" in said(
            "s3cret%40%2Fx", sslmode="disable"
        )
        assert "(root certificate): check sslmode and sslrootcert" in said(
            "s3cret%40%2Fx", sslmode="verify-full", sslrootcert="/dev/null"
        )
    finally:
        server.remove()


POOLER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@pytest.fixture
def pooler(postgres, database, tmp_path, monkeypatch):
    """A pooler of transactions in front of the server, with three connections to it."""
    if POOLER is None:
        pytest.skip("there is no pgbouncer here")
    folder = Path(tempfile.mkdtemp(prefix="pg-pooler-"))
    (folder / "ini").write_text(
        f"[databases]\nshop = host={postgres.folder} port=5432 dbname=shop user=postgres\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 5432\nauth_type = any\n"
        f"pool_mode = transaction\ndefault_pool_size = 3\nquery_wait_timeout = 20\n"
    )
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        os.chown(folder, NOBODY, NOBODY)
    process = subprocess.Popen([POOLER, folder / "ini"], **user, cwd="/", stderr=(folder / "log").open("wb"))
    try:
        address = postgres.address("shop").replace(str(postgres.folder), str(folder))
        end = time.monotonic() + PATIENCE
        while not (folder / ".s.PGSQL.5432").exists():
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        monkeypatch.setenv("DQECIR_DATABASE_URL", address)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)
        shutil.rmtree(folder)


def test_it_works_behind_a_pooler_of_transactions(pooler, tmp_path, monkeypatch, dqecir):
    monkeypatch.setattr("dqecir.index.postgres.FEW", 5)
    own = engines.engine("postgres").build(tmp_path / "i", DOT, batches(header=DOT))
    wrong = []

    def use(number: int) -> None:
        try:
            handle = engines.open_index(tmp_path / "i")
            for step in range(10):
                handle.add(item(f"new{number}-{step}", step, DOT))
                assert f"new{number}-{step}" in handle
                assert len(handle.search(torch.ones(2, 1, 8), 5)[1]) == 5
                assert handle.page(3).next == "item2"
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not wrong
    assert len(own) == 90
    right = [hit.id for hit in own.search(torch.ones(1, 1, 8), 9)[0]]
    own.configure(SearchSettings(candidates=100, exact_up_to=5))
    assert [hit.id for hit in own.search(torch.ones(1, 1, 8), 9)[0]] == right
    assert dqecir("index", "leftovers")[1] == "no interrupted build left anything behind\n"
    assert len(type(own).build(tmp_path / "i", DOT, batches(4, header=DOT))) == 4
    import psycopg

    # Settings would stay on the connections that the next client is given.
    with ExitStack() as opened:
        for _ in range(3):
            connection = opened.enter_context(psycopg.connect(pooler))
            kept = "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> ALL(%s)"
            assert connection.execute(kept, [["client_encoding", "application_name"]]).fetchall() == []
