"""Show the progress of long work on standard error: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, soft_wrap=True, emoji=False)
"""The console for progress and messages; standard output has only results. Long lines are not broken, so that
paths and commands can be copied."""

EVERY = 10.0
"""Seconds between two lines of progress, if there is no terminal."""

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    what: str,
    total: int | None = None,
    quiet: bool = False,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
) -> Iterator[Item]:
    """Yield ``items``, and show what is done, how much of it, how fast, and the time left.

    ``what`` names the work. On a terminal this is a bar, else a line every :data:`EVERY` seconds, even during
    a long item. ``total`` is the number of items. Default: their length, if they have one. ``quiet``: show
    nothing. ``clock`` returns the time in seconds; ``wait`` waits for an event for some seconds, and returns
    whether it was set.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if quiet:
        yield from items
    elif console.is_terminal:
        yield from _under_a_bar(items, what, total)
    else:
        yield from _with_lines(items, _Count(what, total, clock), wait)


def _under_a_bar(items: Iterable[Item], what: str, total: int | None) -> Iterator[Item]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, rate="")
        for item in items:
            yield item
            speed = progress.tasks[task].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")


class _Count:
    """How many items are done, and since when."""

    def __init__(self, what: str, total: int | None, clock: Callable[[], float]) -> None:
        self.what, self.total, self.clock = what, total, clock
        self.started, self.done = clock(), 0

    def line(self) -> str:
        seconds = self.clock() - self.started
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        parts = [f"{self.what}: {count}", _span(seconds)]
        if self.done and seconds > 0:
            parts.append(f"{self.done / seconds:.1f}/s")
            if self.total is not None:
                parts.append(f"{_span(seconds * (self.total - self.done) / self.done)} left")
        return ", ".join(parts)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _with_lines(
    items: Iterable[Item], count: _Count, wait: Callable[[threading.Event, float], bool]
) -> Iterator[Item]:
    finished = threading.Event()

    def speak() -> None:
        while not wait(finished, EVERY):
            console.print(escape(count.line()))

    # A separate thread, because one item may take minutes.
    thread = threading.Thread(target=speak, name=f"progress of {count.what}", daemon=True)
    thread.start()
    try:
        for item in items:
            yield item
            count.done += 1
    finally:
        finished.set()
        thread.join()
