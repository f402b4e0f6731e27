"""A service over drawn garments: a tiny random model whose attributes can be weighed, and its index."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dqecir.search.retriever import ComposedRetriever
from dqecir.service.app import create_app
from dqecir.service.configuration import ServiceSettings
from tests.conftest import PATIENCE, tiny_model

COMMAND = "from dqecir.cli import main; main()"

HERE = "http://127.0.0.1:8000"
"""The address by which a service is asked that only its own machine can reach."""


@pytest.fixture(scope="session")
def served(tmp_path_factory, garments_folder) -> tuple[Path, Path]:
    """Return a model folder, and an index of 240 garments that no test changes."""
    folder = tmp_path_factory.mktemp("served")
    model = tiny_model().with_method("dqe_values", {})
    model.save_pretrained(folder / "model")
    ComposedRetriever(model).build_index(garments_folder, folder / "index", quiet=True)
    return folder / "model", folder / "index"


@pytest.fixture(scope="session")
def retriever(served) -> ComposedRetriever:
    """Return the same model and index without a service."""
    return ComposedRetriever.from_pretrained(served[0]).open_index(served[1])


@pytest.fixture
def settings(served, tmp_path) -> ServiceSettings:
    """Return settings of a service whose index may be changed."""
    shutil.copytree(served[1], tmp_path / "index")
    return ServiceSettings(index=tmp_path / "index", model=served[0])


@pytest.fixture
def serving(settings):
    """Return a function that starts a service in this process and returns a context manager of its client."""

    @contextmanager
    def start(**changed):
        app = create_app(ServiceSettings.model_validate({**settings.model_dump(), **changed}))
        # What a request raises is what its client is told.
        with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
            yield client

    return start


@pytest.fixture
def client(serving):
    with serving() as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> bytes:
    """Return a small picture as a client uploads it."""
    written = io.BytesIO()
    Image.linear_gradient("L").resize((60, 80)).convert("RGB").save(written, "PNG")
    return written.getvalue()


def form(request: dict, image: bytes) -> dict:
    """Return the arguments of a request with a picture."""
    return {"data": {"request": json.dumps(request)}, "files": {"image": ("a.png", image)}}


def put(client: TestClient, item_id: str, image: bytes, attributes: dict | None = None, **more):
    data = {} if attributes is None else {"attributes": json.dumps(attributes)}
    return client.put(f"/v1/items/{item_id}", data=data, files={"image": ("a.png", image)}, **more)


def refused(response, status: int) -> str:
    """Return the sentence of a problem, after checking the status of the response."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == status
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["detail"]
    return told["detail"]


class Process:
    """A process that runs ``dqecir serve``."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "serve", "--port", "0", *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        said = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found, said + self.log.read_text()
        self.address, self.port = found[0], int(found[1])

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def lines(self) -> list[dict]:
        """Return the lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def process(settings, tmp_path):
    started = Process(tmp_path, "--index", settings.index, "--model", settings.model)
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.wait()
    started.process.stdout.close()
