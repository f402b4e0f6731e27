"""Locks: who waits comes before who wants it again."""

import threading
import time

from dqecir.index.locking import TurnLock


def test_a_lock_goes_to_who_waits_before_who_had_it():
    lock, done, turns = TurnLock(), threading.Event(), []

    def write() -> None:
        while not done.is_set():
            with lock:
                turns.append("write")
                time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    passed = []
    for _ in range(20):
        time.sleep(0.003)
        before = len(turns)
        with lock:
            passed.append(len(turns) - before)
    done.set()
    writer.join()
    # The one under way when it came, and one that began while it was coming.
    assert max(passed) <= 2
    assert len(turns) > 20
