"""One thread runs the model, and handles all waiting requests together."""

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
"""Returns a result for each argument, in order."""


class Gate:
    """Limit the number of requests in progress, and the time of each."""

    def __init__(self, most: int, what: str, seconds: float | None = None) -> None:
        """Allow ``most`` requests at a time, each for ``seconds`` (None: no limit).

        ``what`` names the requests in errors, in the plural.
        """
        self.most, self.inside, self._what, self._seconds = most, 0, what, seconds

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Count a request as in progress while the ``async with`` block runs.

        Raises a :class:`Problem`: status 429 if already ``most`` are in progress, 504 if the block takes too
        long.
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
    """A thread that runs the model for waiting jobs.

    Waiting jobs with the same function are done together, at most ``batch`` of them.

    If a batch fails, its jobs are repeated one by one, so that one bad request does not fail the others.
    """

    def __init__(self, batch: int, said: Callable[[int], None]) -> None:
        """Do up to ``batch`` jobs together; ``said`` is called in the thread with the size of each batch."""
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
        """Whether the thread accepts jobs."""
        return self._thread.is_alive() and not self._stopping

    async def ask(self, work: Work[Argument, Result], argument: Argument) -> Result:
        """Run ``work`` in the thread on ``argument``, together with waiting jobs; return its result.

        An error of ``work`` for this argument is raised here. Raises a :class:`Problem` with status 503 if
        the service is being stopped.
        """
        answer: Future[Result] = Future()
        with self._wake:
            if self._stopping:
                raise Problem(
                    503, "the service is being stopped: try again in a few seconds", {"Retry-After": "5"}
                )
            self._jobs.append(_Job(work, argument, answer))
            self._wake.notify()
        return await asyncio.wrap_future(answer)

    def _run(self) -> None:
        while jobs := self._next():
            self._said(len(jobs))
            _do(jobs)

    def _next(self) -> list[_Job]:
        """Wait for jobs, and return those to do next; empty if the thread must end."""
        with self._wake:
            while not (taken := self._taken()) and not self._stopping:
                self._wake.wait()
            return taken

    def _taken(self) -> list[_Job]:
        """Remove and return the oldest waiting job and those with the same function; skip cancelled ones."""
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
