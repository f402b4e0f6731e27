"""The thread of the model, and cached results."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from dqecir.io.recent import Recent
from dqecir.service.batching import Gate, Worker
from dqecir.service.problems import Problem
from tests.conftest import PATIENCE


def doubled(numbers: Sequence[int]) -> list[int]:
    return [2 * number for number in numbers]


def test_a_job_that_is_given_up_ends_nothing():
    sizes: list[int] = []
    worker = Worker(4, sizes.append)

    async def asked() -> list[int]:
        for _ in range(2):
            gone = asyncio.create_task(worker.ask(doubled, 2))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
        worker.start()
        async with asyncio.timeout(PATIENCE):
            return [await worker.ask(doubled, number) for number in (3, 4)]

    try:
        # In a thread of its own, because a browser's tests leave a loop running in this one.
        with ThreadPoolExecutor(1) as beside:
            assert beside.submit(asyncio.run, asked()).result() == [6, 8]
        assert worker.alive
    finally:
        worker.stop()
    assert not worker.alive
    assert sizes == [1, 1]


def test_what_was_not_used_for_longest_gives_way():
    kept = Recent[bytes](10, len)
    kept.put("a", bytes(4))
    kept.put("b", bytes(4))
    assert kept.get("a") == bytes(4)
    kept.put("c", bytes(4))
    assert kept.get("b") is None
    assert kept.get("a") == kept.get("c") == bytes(4)
    kept.put("c", bytes(6))
    assert kept.get("a") == bytes(4)
    kept.put("d", bytes(11))  # more than there is room for
    assert [kept.get(name) for name in "acd"] == [bytes(4), bytes(6), None]


@pytest.mark.parametrize(("seconds", "error"), [(None, TimeoutError), (60.0, Problem)])
def test_a_gate_answers_for_its_own_limit_of_time(seconds, error):
    gate = Gate(1, "requests", seconds)

    async def late() -> None:
        async with gate.entered():
            raise TimeoutError

    with ThreadPoolExecutor(1) as beside, pytest.raises(error):
        beside.submit(asyncio.run, late()).result()
    assert gate.inside == 0
