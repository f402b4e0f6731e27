"""One thread changes the indexes, and adds waiting items together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from dqecir.data.payload_fields import PRODUCT
from dqecir.errors import DataError
from dqecir.index.contract import Index, ItemBatch
from dqecir.search.product_search import items_named
from dqecir.service.problems import log, of_index
from dqecir.service.uploads import Uploads

TOGETHER = 64
"""Most waiting items that are added together."""


@dataclass(frozen=True)
class Put:
    """An item to add or replace.

    ``tokens``: its target embedding [n_t, D] for each index; ``image``: the bytes of its picture.
    """

    item_id: str
    tokens: Sequence[Tensor]
    attributes: Mapping[str, Any]
    image: bytes


Change = Put | Sequence[str]
"""An item to add, or the ids of items to delete."""


class Writer:
    """Applies changes to all indexes, one after the other.

    When :meth:`change` returns, its change is on disk.
    """

    def __init__(self, indexes: Sequence[Index], uploads: Uploads) -> None:
        self._indexes, self._uploads = indexes, uploads
        self._pending: deque[tuple[Change, Future[int]]] = deque()
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def close(self) -> None:
        """Apply the waiting changes, and end the thread."""
        self._thread.shutdown()

    async def change(self, change: Change) -> int:
        """Apply a change and wait for it; return how many of its items existed before.

        Raises the error of the change, which then has changed no index.
        """
        done: Future[int] = Future()
        # The change is made even if the client closes its connection, so it cannot be cancelled.
        done.set_running_or_notify_cancel()
        with self._lock:
            self._pending.append((change, done))
        self._thread.submit(self._next)
        return await asyncio.wrap_future(done)

    def _next(self) -> None:
        """Apply the oldest waiting change, together with the additions that follow it.

        It does nothing if an earlier call has already applied all.
        """
        with self._lock:
            taken = [self._pending.popleft()] if self._pending else []
            ids = {change.item_id for change, _ in taken if isinstance(change, Put)}
            while ids and self._pending and len(taken) < TOGETHER:
                following = self._pending[0][0]
                if not isinstance(following, Put) or following.item_id in ids:
                    break
                ids.add(following.item_id)
                taken.append(self._pending.popleft())
        if not taken:
            return
        try:
            counts = self._changed([change for change, _ in taken])
        except Exception as error:  # The error is for the caller; in this thread it would be lost.
            for _, done in taken:
                done.set_exception(of_index(error) if isinstance(error, OSError) else error)
        else:
            for (_, done), count in zip(taken, counts, strict=True):
                done.set_result(count)

    def _changed(self, changes: Sequence[Change]) -> list[int]:
        for index in self._indexes:
            index.refresh()
        first = changes[0]
        if not isinstance(first, Put):
            ids = items_named(self._indexes[0], first)
            known = self._indexes[0].payloads(ids)
            with ExitStack() as indexes:
                for index in self._indexes:
                    indexes.enter_context(_restoring(index, ids))
                counts = [index.delete(ids) for index in self._indexes]
            self._forget(known.values())
            return [counts[0]]
        puts = [change for change in changes if isinstance(change, Put)]
        known = self._indexes[0].payloads([put.item_id for put in puts])
        # A new item whose id is that of a product replaces all pictures of the product.
        views = self._indexes[0].views({put.item_id for put in puts if put.item_id not in known})
        replaced = self._indexes[0].payloads([view for own in views.values() for view in own])
        # Pictures are stored and removed by this thread only, so that no picture in use is removed.
        paths: list[str] = []
        changed = [*(put.item_id for put in puts), *replaced]
        try:
            paths += (self._uploads.keep(put.item_id, put.image) for put in puts)
            payloads = [
                {"path": path, **_product(put.item_id, known, views), **put.attributes}
                for path, put in zip(paths, puts, strict=True)
            ]
            with ExitStack() as indexes:
                for place, index in enumerate(self._indexes):
                    indexes.enter_context(_restoring(index, changed))
                    tokens = torch.stack([put.tokens[place] for put in puts])
                    index.add(ItemBatch([put.item_id for put in puts], tokens, payloads), list(replaced))
        except Exception:  # It is raised again below, after the pictures of the failed change are removed.
            shown = {payload.get("path") for payload in self._indexes[0].payloads(list(known)).values()}
            self._forget({"path": path} for path in set(paths) - shown)
            raise
        gone = {**known, **replaced}
        self._forget(old for old in gone.values() if old.get("path") not in paths)
        return [int(put.item_id in known or put.item_id in views) for put in puts]

    def _forget(self, payloads: Iterable[Mapping[str, Any]]) -> None:
        for payload in payloads:
            self._uploads.forget(self._indexes[0], payload)


@contextmanager
def _restoring(index: Index, ids: Sequence[str]) -> Iterator[None]:
    """If the ``with`` block or a later step fails, put the items ``ids`` of ``index`` back as they were."""
    generation, before = index.generation, index.payloads(ids)
    tokens = index.tokens(list(before)) if before else None
    try:
        yield
    except Exception:  # It is raised again below, after the items are restored.
        # If the generation is the same, the index has not changed.
        if index.generation != generation:
            try:
                added = [item_id for item_id in ids if item_id not in before]
                if tokens is None:
                    index.delete(added)
                else:
                    index.add(ItemBatch(list(before), tokens, list(before.values())), added)
            except (DataError, OSError) as error:
                reason = f"{index.folder} still has a part of a change that failed: {error}"
                log.error("change not taken back", extra={"fields": {"reason": reason}})
        raise


def _product(
    item_id: str, known: Mapping[str, Mapping[str, Any]], views: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the product part of a new item's payload.

    An item that is replaced keeps its product; an item with the id of a product becomes its only view.
    """
    if item_id in views:
        return {PRODUCT: item_id}
    before = known.get(item_id, {})
    return {PRODUCT: before[PRODUCT]} if PRODUCT in before else {}
