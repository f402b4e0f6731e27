"""One thread in which the model runs: what waits at the same moment is answered together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from dqecir.service.problems import Problem, overloaded

Argument = TypeVar("Argument")
Result = TypeVar("Result")

Work = Callable[[Sequence[Argument]], Sequence[Result]]
"""Answers many at once, in their order."""


class Gate:
    """How many requests are within at one moment; a further one is told to come again."""

    def __init__(self, most: int, what: str) -> None:
        self.most, self.inside, self._what = most, 0, what

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be within, or raise a :class:`Problem` with status 429."""
        if self.inside >= self.most:
            raise overloaded(f"{self.most} {self._what} wait already: try again in a second")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


@dataclass
class _Job:
    work: Work[Any, Any]
    argument: Any
    answer: asyncio.Future[Any]
    given_up: bool = False


class Worker:
    """The thread. Jobs of one kind of work that wait together are done together, ``batch`` at most.

    A batch that fails is done again one by one, so that a request is not refused for its neighbour.
    """

    def __init__(self, batch: int, said: Callable[[int], None]) -> None:
        """``said`` is told the size of every batch, in the thread."""
        self._batch, self._said = batch, said
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was asked, and end."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it takes work."""
        return self._thread.is_alive() and not self._stopping

    async def ask(self, work: Work[Argument, Result], argument: Argument) -> Result:
        """What ``work`` makes of ``argument``, done in the thread; raises what it raised."""
        job = _Job(work, argument, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._stopping:
                raise Problem(503, "the service is being stopped", {"Retry-After": "5"})
            self._jobs.append(job)
            self._wake.notify()
        try:
            result: Result = await job.answer
            return result
        finally:
            # Whoever asked may have gone, or its time may be over.
            job.given_up = True

    def _run(self) -> None:
        while jobs := self._next():
            self._said(len(jobs))
            deliver([job.answer for job in jobs], self._done(jobs))

    def _next(self) -> list[_Job]:
        """The next jobs, once there are any; none where the end has come."""
        with self._wake:
            # A job may be given up at any moment, so whether there is one is known once it is taken.
            while not (taken := self._taken()) and not self._stopping:
                self._wake.wait()
            return taken

    def _taken(self) -> list[_Job]:
        """What waits and is not given up, all of the kind that has waited longest; perhaps nothing."""
        taken: list[_Job] = []
        others: deque[_Job] = deque()
        while self._jobs and len(taken) < self._batch:
            job = self._jobs.popleft()
            if job.given_up:
                continue
            same = not taken or job.work == taken[0].work
            (taken if same else others).append(job)
        self._jobs.extendleft(reversed(others))
        return taken

    def _done(self, jobs: Sequence[_Job]) -> list[Any]:
        try:
            return list(jobs[0].work([job.argument for job in jobs]))
        except Exception as error:  # it belongs to who asked, and must not end the thread
            if len(jobs) == 1:
                return [Failure(error)]
        return [answer for job in jobs for answer in self._done([job])]


@dataclass(frozen=True)
class Failure:
    """What a future is told in place of an answer."""

    error: Exception


def deliver(waiting: Sequence[asyncio.Future[Any]], answers: Sequence[Any]) -> None:
    """Give futures of one event loop their answers, or a :class:`Failure` each, from another thread."""
    # Where the loop is closed nobody waits any more.
    with suppress(RuntimeError):
        waiting[0].get_loop().call_soon_threadsafe(_settle, waiting, answers)


def _settle(waiting: Sequence[asyncio.Future[Any]], answers: Sequence[Any]) -> None:
    for future, answer in zip(waiting, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Failure):
            future.set_exception(answer.error)
        else:
            future.set_result(answer)
