"""One thread in which the model runs: what waits at the same moment is answered together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

    def __init__(self, batch: int, said: Callable[[int], None] = lambda size: None) -> None:
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

    @property
    def waiting(self) -> int:
        """Jobs that are not begun."""
        return len(self._jobs)

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
        while jobs := self._taken():
            self._said(len(jobs))
            answers = self._done(jobs)
            loop = jobs[0].answer.get_loop()
            # Where the loop is closed nobody waits any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, jobs, answers)

    def _taken(self) -> list[_Job]:
        """The next jobs, all of the kind that has waited longest; none where the end has come."""
        with self._wake:
            while True:
                while self._jobs and self._jobs[0].given_up:
                    self._jobs.popleft()
                if self._jobs or self._stopping:
                    break
                self._wake.wait()
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
        except Exception as error:
            if len(jobs) == 1:
                return [_Failure(error)]
        return [answer for job in jobs for answer in self._done([job])]


@dataclass(frozen=True)
class _Failure:
    error: Exception


def _deliver(jobs: Sequence[_Job], answers: Sequence[Any]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if job.answer.done():
            continue
        if isinstance(answer, _Failure):
            job.answer.set_exception(answer.error)
        else:
            job.answer.set_result(answer)
