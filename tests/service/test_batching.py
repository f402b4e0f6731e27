"""The thread of the model, and what is kept of what it made."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dqecir.io.recent import Recent
from dqecir.service.batching import Worker
from tests.conftest import PATIENCE


class GivenUpWhenLookedAt:
    """A job that waits when it is looked at first, and is given up at every later look."""

    work, argument = staticmethod(list), 0

    def __init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        self._looks = 0

    @property
    def given_up(self) -> bool:
        self._looks += 1
        return self._looks > 1


def test_a_job_that_is_given_up_at_any_moment_ends_nothing():
    sizes: list[int] = []
    worker = Worker(4, sizes.append)

    async def asked() -> list[int]:
        worker._jobs.append(GivenUpWhenLookedAt())
        worker.start()
        async with asyncio.timeout(PATIENCE):
            while worker._jobs:
                await asyncio.sleep(0.001)
            return [await worker.ask(lambda numbers: [2 * n for n in numbers], number) for number in (3, 4)]

    try:
        # In a thread of its own, because a browser's tests leave a loop running in this one.
        with ThreadPoolExecutor(1) as beside:
            assert beside.submit(asyncio.run, asked()).result() == [6, 8]
        assert worker.alive
    finally:
        worker.stop()
    assert not worker.alive
    assert sizes[-2:] == [1, 1]


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
