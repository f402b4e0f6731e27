"""One thread runs the model, and answers all waiting requests together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from dqecir.service.problems import Problem, overloaded

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Work = Callable[[Sequence[Argument]], Sequence[Result]]
"""Answers many arguments together, in order."""


class Gate:
    """Limit the number of requests in progress, and the time of each."""

    def __init__(self, most: int, what: str, seconds: float | None = None) -> None:
        """Default of ``seconds``: no limit."""
        self.most, self.inside, self._what, self._seconds = most, 0, what, seconds

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Count a request while the block runs.

        Raises a :class:`Problem`: 429 if too many are in progress, 504 if the block takes too long.
        """
        if self.inside >= self.most:
            raise overloaded(f"{self.most} {self._what} are already waiting: try again in a second")
        self.inside += 1
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            if self._seconds is None:
                raise
            raise Problem(504, f"the answer took longer than {self._seconds:g} seconds: try again") from None
        finally:
            self.inside -= 1


@dataclass(frozen=True)
class _Job:
    work: Work[Any, Any]
    argument: Any
    answer: Future[Any]


class Worker:
    """The model's thread. Waiting jobs of one kind are done together, at most ``batch`` of them.

    A failed batch is repeated one by one, so that one bad request does not fail others.
    """

    def __init__(self, batch: int, said: Callable[[int], None]) -> None:
        """``said`` is called in the thread with the size of every batch."""
        self._batch, self._said = batch, said
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish waiting jobs, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it accepts jobs."""
        return self._thread.is_alive() and not self._stopping

    async def ask(self, work: Work[Argument, Result], argument: Argument) -> Result:
        """Run ``work`` on ``argument`` in the thread, and return its result or raise its error."""
        answer: Future[Result] = Future()
        with self._wake:
            if self._stopping:
                raise Problem(503, "the service is being stopped", {"Retry-After": "5"})
            self._jobs.append(_Job(work, argument, answer))
            self._wake.notify()
        return await asyncio.wrap_future(answer)

    def _run(self) -> None:
        while jobs := self._next():
            self._said(len(jobs))
            _do(jobs)

    def _next(self) -> list[_Job]:
        """Wait for the next jobs, and return them; none at the end."""
        with self._wake:
            while not (taken := self._taken()) and not self._stopping:
                self._wake.wait()
            return taken

    def _taken(self) -> list[_Job]:
        """Return waiting jobs of the kind that has waited longest, without cancelled ones."""
        taken: list[_Job] = []
        others: deque[_Job] = deque()
        while self._jobs and len(taken) < self._batch:
            job = self._jobs.popleft()
            if taken and job.work != taken[0].work:
                others.append(job)
            # A request is cancelled when its client closes the connection, or after its time limit.
            elif job.answer.set_running_or_notify_cancel():
                taken.append(job)
        self._jobs.extendleft(reversed(others))
        return taken


def _do(jobs: Sequence[_Job]) -> None:
    try:
        answers = list(jobs[0].work([job.argument for job in jobs]))
    except Exception as error:  # The error is for the caller, and must not end the thread.
        if len(jobs) == 1:
            jobs[0].answer.set_exception(error)
            return
        for job in jobs:
            _do([job])
    else:
        for job, answer in zip(jobs, answers, strict=True):
            job.answer.set_result(answer)
