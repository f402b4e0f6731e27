"""Check whether the indexes answer, in separate threads, so that a hanging index blocks nothing else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from dqecir.index.contract import Index
from dqecir.service.problems import Problem, of_index

SECONDS = 0.8
"""Seconds within which all indexes must answer."""

MOST = 8
"""Most checks that may wait for an index at a time; a further request waits for the newest of them."""


class Readiness:
    """Checks whether the indexes of a service answer."""

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = indexes
        self._asked: list[Future[None]] = []

    async def check(self) -> None:
        """Raise a :class:`Problem` with status 503 unless every index answers within :data:`SECONDS`."""
        self._asked = [asked for asked in self._asked if not asked.done()]
        if len(self._asked) < MOST:
            self._asked.append(self._ask())
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.wrap_future(self._asked[-1])
        except TimeoutError:
            said = f"the index does not answer within {SECONDS:g} seconds: try again soon"
            raise Problem(503, said, {"Retry-After": "5"}) from None
        except Exception as error:  # However the index failed, it does not answer.
            raise of_index(error) from None

    def _ask(self) -> Future[None]:
        answered: Future[None] = Future()
        # Several requests may wait for this check, so one of them must not cancel it.
        answered.set_running_or_notify_cancel()

        def ask() -> None:
            try:
                for index in self._indexes:
                    index.refresh()
            except BaseException as error:  # The error is for those who wait; here it would be lost.
                answered.set_exception(error)
            else:
                answered.set_result(None)

        # A daemon thread, because threads of a pool keep the process from ending while an index hangs.
        threading.Thread(target=ask, name="readiness", daemon=True).start()
        return answered
