"""Lists follow an index that is being changed, without reading it all the time."""

import pytest

from dqecir.service import listing
from dqecir.service.listing import Listing


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Slow:
    """An index of as many items as it has generations, which takes two seconds to read."""

    def __init__(self, clock: Clock) -> None:
        self.generation, self._clock = 1, clock

    def entries(self):
        self._clock.now += 2
        return [(str(number), {}) for number in range(self.generation)]


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(listing, "time", clock)
    return clock


def test_a_slow_index_that_changes_is_read_for_a_tenth_of_the_time(clock):
    index = Slow(clock)
    listed = Listing(index, lambda: index.generation)

    def count() -> int:
        return len(listed.page(10, None, None, None)[0])

    assert count() == 1
    index.generation = 2
    for _ in range(5):
        assert count() == 1
    assert clock.now == 102
    clock.now += 19
    assert count() == 1
    clock.now += 2
    assert count() == 2
    # What has not changed is not read again, however long ago it was.
    clock.now += 1000
    assert count() == 2
    assert clock.now == 1125
