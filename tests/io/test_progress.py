"""Progress without a terminal: lines at intervals, however long an item takes, and none in quiet mode."""

import io
from queue import Queue

import pytest
from rich.console import Console

from dqecir.io import progress
from dqecir.io.progress import track


class Ticks:
    """A clock, and a wait for it, that a test moves by hand."""

    def __init__(self):
        self.now, self._waiting, self._answers = 0.0, Queue(), Queue()

    def clock(self):
        return self.now

    def wait(self, event, seconds):
        self._waiting.put(seconds)
        return self._answers.get()

    def pass_time(self, seconds):
        """Let time pass in which a line is due; return once it is printed."""
        waited = self._waiting.get()
        self.now += seconds
        self._answers.put(False)
        self._waiting.put(self._waiting.get())
        return waited

    def end(self):
        self._waiting.get()
        self.end_next()

    def end_next(self):
        """Let the next wait end because the work is over."""
        self._answers.put(True)


@pytest.fixture
def printed(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=text, soft_wrap=True))
    return text


def test_a_line_every_ten_seconds_even_within_a_long_item(printed):
    ticks = Ticks()
    for number in track(range(4), "encoding [images]", clock=ticks.clock, wait=ticks.wait):
        if number == 0:
            assert ticks.pass_time(10) == 10
        if number == 2:
            ticks.pass_time(10)
            ticks.pass_time(160)
            ticks.end()
    assert printed.getvalue().splitlines() == [
        "encoding [images]: 0 of 4, 10 s",
        "encoding [images]: 2 of 4, 20 s, 0.1/s, 20 s left",
        "encoding [images]: 2 of 4, 3 min, 0.0/s, 3 min left",
    ]


def test_without_a_total_what_is_done_is_counted(printed):
    ticks = Ticks()
    for number in track(iter("ab"), "reading", clock=ticks.clock, wait=ticks.wait):
        if number == "b":
            ticks.pass_time(4)
            ticks.end()
    assert printed.getvalue() == "reading: 1, 4 s, 0.2/s\n"


def test_lines_end_with_the_work_where_it_fails_or_is_left(printed):
    ticks = Ticks()
    ticks.end_next()
    with pytest.raises(ValueError, match="broken"):
        for _ in track(range(3), "trying", clock=ticks.clock, wait=ticks.wait):
            raise ValueError("broken")
    assert list(track(range(3), "in silence", quiet=True, wait=None)) == [0, 1, 2]
    assert printed.getvalue() == ""
