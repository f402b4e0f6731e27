"""The engine ``postgres`` on servers of the tests' own."""

import pytest

from tests.postgres_server import postgres_server


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
