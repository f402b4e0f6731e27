"""The engine ``postgres`` on the server of the test process."""

import pytest

from tests.index.contract import DOT, batches


@pytest.fixture
def postgres_index(database):
    """The engine, with a database of which nothing is written yet."""
    from dqecir.index.postgres import PostgresIndex

    return PostgresIndex


@pytest.fixture
def index(postgres_index, tmp_path):
    return postgres_index.build(tmp_path / "index", DOT, batches(header=DOT))
