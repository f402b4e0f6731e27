"""Shared fixtures: a small drawn catalogue, a tiny random model, and the folder of real data."""

import os
import sys
import uuid
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from dqecir import cli
from dqecir.data.catalogue import read_catalogue
from dqecir.data.images import Preprocessing
from dqecir.encoders.blip2 import Blip2, Blip2Config
from dqecir.encoders.tokenizer import train_word_pieces
from dqecir.encoders.towers import TowerConfig
from dqecir.language.vocabulary import shipped_vocabularies
from dqecir.methods.attribute_heads import AttributeHeads, HeadsConfig
from dqecir.model.composed_model import ComposedModel, new_model
from dqecir.synthetic.garment_vectors import GARMENT_ATTRIBUTES
from dqecir.synthetic.garments import GARMENTS

os.environ.setdefault("DQECIR_DEVICE", "cpu")  # tests compare numbers bit for bit

# No property may fail because the machine is busy: nothing is timed. The same examples are drawn every
# time, so that where a suite was green and is red after a change, the change is at fault.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("suite")

PATIENCE = 300.0
"""Seconds until a test that waits in vain ends: against waiting for ever, and no measure of speed."""

MODEL_OF_0_1_0 = Path(__file__).parent / "models" / "of_0_1_0"
"""The model that version 0.1.0 shipped, whose folder and indexes are still read."""

TINY = Blip2Config(
    tower=TowerConfig(kind="stem", image_size=32, widths=(8, 16, 16)),
    hidden_size=16,
    layers=2,
    heads=2,
    intermediate_size=32,
    query_tokens=3,
    embedding_size=24,
    text_positions=48,
    dropout=0.1,
    attention="eager",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run the tests of the page in one process, because they share one service and one browser."""
    # Not by marks of groups: they are passed over in silence by pairs of releases of pytest and xdist.
    from xdist.scheduler import LoadGroupScheduling

    class Scheduling(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "page" if nodeid.startswith("tests/page/") else nodeid

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real annotations and photos, or skip the test and say which folder is missing."""
    folder = Path(os.environ.get("DQECIR_SHARED", Path(__file__).parent.parent.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set DQECIR_SHARED to have this tested")
    return folder


@pytest.fixture(scope="session")
def postgres():
    """Yield a PostgreSQL server, one for each test process."""
    from tests.postgres_server import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres, monkeypatch) -> str:
    """Return the address of a database with pgvector; indexes of the test go to an empty schema there."""
    schema = f"shop_{uuid.uuid4().hex[:8]}"
    postgres.execute(f"CREATE SCHEMA {schema}", database="shop")
    monkeypatch.setenv("DQECIR_DATABASE_URL", postgres.address("shop"))
    monkeypatch.setenv("DQECIR_DATABASE_SCHEMA", schema)
    return postgres.address("shop")


@pytest.fixture(scope="session")
def garments_folder(tmp_path_factory) -> Path:
    """Return a catalogue of 240 drawn garments in all three splits."""
    return GARMENTS.write(
        tmp_path_factory.mktemp("data") / "garments", items=240, seed=3, size=64, quiet=True
    )


@pytest.fixture(scope="session")
def garments(garments_folder):
    return read_catalogue(garments_folder)


def tiny_model() -> ComposedModel:
    """Return a random model with attribute heads, of the same classes as the published ones."""
    torch.manual_seed(0)
    words = [word for vocabulary in shipped_vocabularies() for word in sorted(vocabulary.lexicon)]
    tokenizer = train_word_pieces([*words, "is and has with the same but not color"] * 2, 500)
    columns = {column: tuple(sorted({*values, ""})) for column, values in GARMENT_ATTRIBUTES.items()}
    backbone = Blip2(TINY.model_copy(update={"vocabulary_size": len(tokenizer)}))
    heads = AttributeHeads(HeadsConfig(token_width=16, columns=columns))
    preprocessing = Preprocessing(size=32, pad_ratio=1.0, pad_colour=(255, 255, 255))
    model = new_model(backbone, tokenizer, preprocessing, heads, 32, {"made": "for tests"}).eval()
    model.backbone.freeze_tower()
    return model


@pytest.fixture
def model() -> ComposedModel:
    return tiny_model()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    return tiny_model().save_pretrained(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def one_vector_folder(tmp_path_factory) -> Path:
    """A model of the rule ``dot``, which every engine follows."""
    model = tiny_model().with_method("dqe_values", {"rule": "dot"})
    return model.save_pretrained(tmp_path_factory.mktemp("models") / "one-vector")


@pytest.fixture
def dqecir(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dqecir", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return run
