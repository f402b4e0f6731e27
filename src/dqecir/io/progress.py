"""One progress bar for everything long: count, speed, time left; on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True, soft_wrap=True, emoji=False)
"""Where progress and messages go, so that standard output holds results alone. Lines are not
broken, so that paths and commands can be copied."""

Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, total: int | None = None, quiet: bool = False) -> Iterator[Item]:
    """Yield ``items`` under a bar that says ``what`` is being done, how fast, and for how long yet."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet) as progress:
        task = progress.add_task(what, total=total, rate="")
        for item in items:
            yield item
            speed = progress.tasks[task].speed
            progress.update(task, advance=1, rate=f"{speed:.1f}/s" if speed else "")
