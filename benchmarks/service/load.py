"""Measure the searches per second of the service, and of the model without HTTP in the same run.

    OMP_WAIT_POLICY=PASSIVE \\
    python -m benchmarks.service.load --index INDEX --out WORK [--model MODEL] [--seconds 8] [--soak 600]

The script starts the real service on a copy of the index, sends searches from new pictures and from items
with 1, 16 and 64 clients, and checks every response. The model alone is the search core (``SearchEngine``) in
one thread, in batches of the same sizes as the service's. Both are measured in turns; figures are medians of
the rounds. ``OMP_WAIT_POLICY`` makes the model's threads wait as in the service (``dqecir/io/starting.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.service.client import Client, form_of, json_of
from benchmarks.speed.timing import machine

from dqecir.index.engines import open_index
from dqecir.io.files import write_json
from dqecir.search.engine import SearchEngine
from dqecir.search.response import SearchResponse
from dqecir.search.retriever import ComposedRetriever
from dqecir.search.search_request import SearchRequest

CLIENTS = (1, 16, 64)
K = 24
EXPLAINED = "items, with contributions of attributes"
QUESTIONS = 256
NAME = "service.json"
TEXTS = ("is blue", "is red and has long sleeves", "is plain", "is black and is a dress", "has short sleeves")
TOKENS_KEPT = 256_000_000
"""Bytes of image tokens that are kept, as the service keeps them."""
CLOSE = 3e-3
"""By how much a score may differ with what else was in its batch."""


class Served:
    """The service as a separate process."""

    def __init__(self, index: Path, model: Path | None) -> None:
        command = [sys.executable, "-c", "from dqecir.cli import main; main()", "serve", "--port", "0"]
        command += ["--index", str(index), *(["--model", str(model)] if model else [])]
        begun = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        if found is None:
            sys.exit("the service did not start")
        self.port = int(found[1])
        self.get("/readyz")
        self.start_seconds = time.perf_counter() - begun

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as told:
            return str(told.read().decode())

    def batches(self) -> tuple[float, float]:
        """The number of batches so far, and of requests in them."""
        text = self.get("/metrics")
        count, total = (
            float(text.partition(f"dqecir_batch_size_{part} ")[2].split()[0]) for part in ("count", "sum")
        )
        return count, total

    def resident(self) -> int:
        """The process's own memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@dataclass(frozen=True)
class LoadRequest:
    """A search as bytes to send, and the expected results."""

    item: str
    picture: bytes
    text: str
    right: list[tuple[str, float]] = field(default_factory=list)


@dataclass
class Round:
    """The results of asking for some seconds."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    wrong: int = 0


class Model:
    """The search core in this process: the same model and index, without HTTP."""

    def __init__(self, index: Path, model: Path | None) -> None:
        retriever = ComposedRetriever.from_pretrained(model).open_index(index)
        opened = retriever.index
        assert opened is not None
        self.engine = SearchEngine(retriever.model, opened, TOKENS_KEPT)
        placed = ((item_id, opened.picture_path(payload)) for item_id, payload in opened.entries())
        entries = [(item_id, path) for item_id, path in placed if path is not None and path.is_file()]
        chosen = entries[:: max(1, len(entries) // QUESTIONS)][:QUESTIONS]
        texts = itertools.cycle(TEXTS)
        self.questions = [LoadRequest(item_id, path.read_bytes(), next(texts)) for item_id, path in chosen]

    def answers(self, kind: str, rows: Sequence[int]) -> list[SearchResponse]:
        """Answer questions of a kind in one batch."""
        asked = [
            SearchRequest(
                one.picture if kind == "pictures" else None,
                one.text,
                K,
                item=None if kind == "pictures" else one.item,
                explain=kind == EXPLAINED,
            )
            for one in (self.questions[row] for row in rows)
        ]
        return self.engine.answer([self.engine.prepare(one) for one in asked])

    def with_right_answers(self, kind: str) -> list[LoadRequest]:
        """The questions, with what a search without the service finds."""
        found = [
            response
            for n in range(0, len(self.questions), 16)
            for response in self.answers(kind, range(n, min(n + 16, len(self.questions))))
        ]
        return [
            replace(one, right=[(result.id, result.score) for result in response.results])
            for one, response in zip(self.questions, found, strict=True)
        ]

    def per_second(self, kind: str, batch: int, seconds: float) -> float:
        """Searches a second in batches of this size, one after the other."""
        rows = itertools.cycle(range(len(self.questions)))
        self.answers(kind, [next(rows) for _ in range(batch)])
        begun, done = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            self.answers(kind, [next(rows) for _ in range(batch)])
            done += batch
        return done / (time.perf_counter() - begun)


def request_of(question: LoadRequest, kind: str) -> bytes:
    """Return a search as bytes; it requests only results that the model alone also gives."""
    asked = {"text": question.text, "k": K, "spoke": kind == EXPLAINED}
    if kind != "pictures":
        return json_of("POST", "/v1/search", {"item": question.item, **asked})
    return form_of("POST", "/v1/search", "request", asked, question.picture)


def is_right(question: LoadRequest, status: int, body: bytes) -> bool:
    """Return whether a response has the model's results, except for items with practically equal scores."""
    if status != 200:
        return False
    found = json.loads(body)["answers"]
    if len(found) != len(question.right):
        return False
    # What is added meanwhile is passed over; as many of the last right answers were pushed out.
    answers = [one for one in found if not one["id"].startswith("load-")]
    right = dict(question.right)
    for answer, (expected, score) in zip(answers, question.right[: len(answers)], strict=True):
        close = abs(answer["score"] - score) < CLOSE
        if not close or (answer["id"] != expected and abs(right.get(answer["id"], score) - score) >= CLOSE):
            return False
    return True


async def ask(
    port: int, questions: Sequence[tuple[bytes, LoadRequest]], clients: int, seconds: float
) -> Round:
    """Send requests from a number of clients for some seconds; each waits for its response before the next
    one.
    """
    took = Round()
    turns: Iterator[tuple[bytes, LoadRequest]] = itertools.cycle(questions)
    answers: list[tuple[LoadRequest, int, bytes]] = []
    begun = time.perf_counter()

    async def one() -> None:
        async with Client(port) as client:
            while time.perf_counter() - begun < seconds:
                request, question = next(turns)
                sent = time.perf_counter()
                status, body = await client.ask(request)
                took.waits.append(time.perf_counter() - sent)
                answers.append((question, status, body))

    await asyncio.gather(*(one() for _ in range(clients)))
    took.seconds = time.perf_counter() - begun
    # Checked afterwards, so that checking takes nothing from the service.
    took.wrong = sum(not is_right(*answer) for answer in answers)
    return took


def load(served: Served, model: Model, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Measure every kind of question with every number of clients."""
    runs = []
    for kind in ("pictures", "items", EXPLAINED):
        questions = [(request_of(one, kind), one) for one in model.with_right_answers(kind)]
        for clients in CLIENTS:
            asyncio.run(ask(served.port, questions, clients, min(2.0, seconds)))
            rates, own, waits, batches, wrong = [], [], [], [], 0
            for _ in range(rounds):
                before = served.batches()
                took = asyncio.run(ask(served.port, questions, clients, seconds))
                after = served.batches()
                batches.append((after[1] - before[1]) / (after[0] - before[0]))
                rates.append(len(took.waits) / took.seconds)
                waits += took.waits
                wrong += took.wrong
                own.append(model.per_second(kind, max(1, round(batches[-1])), seconds))
            waits.sort()
            runs.append(
                {
                    "kind": kind,
                    "clients": clients,
                    "requests": len(waits),
                    "wrong": wrong,
                    "per_second": statistics.median(rates),
                    "p50_ms": 1000 * waits[len(waits) // 2],
                    "p99_ms": 1000 * waits[min(len(waits) - 1, int(0.99 * len(waits)))],
                    "batch": statistics.median(batches),
                    "model_per_second": statistics.median(own),
                    "ratio": statistics.median(rate / mine for rate, mine in zip(rates, own, strict=True)),
                }
            )
            print(json.dumps(runs[-1]), flush=True)
    return runs


async def soak(served: Served, model: Model, seconds: float) -> dict[str, Any]:
    """Send requests for a long time while items are added and deleted; return memory at the start and at
    the end.
    """
    questions = [(request_of(one, "items"), one) for one in model.with_right_answers("items")]
    pictures = [one.picture for one in model.questions[:16]]
    asked = changes = wrong = 0
    resident: list[int] = []
    turns = itertools.cycle(questions)
    # Memory is settled once every kind of request has been made, over and over.
    warm = min(20.0, seconds / 4)
    begun = time.perf_counter()

    def on() -> bool:
        return time.perf_counter() - begun < seconds

    async def search() -> None:
        nonlocal asked, wrong
        async with Client(served.port) as client:
            while on():
                request, question = next(turns)
                answer = await client.ask(request)
                # Counted after the wait, in which others count, too.
                wrong += not is_right(question, *answer)
                asked += 1

    async def change(name: str) -> None:
        nonlocal changes, wrong
        async with Client(served.port) as client:
            for picture in itertools.cycle(pictures):
                if not on():
                    return
                path = f"/v1/items/{name}"
                # A column that the index lacks would change how texts are read, and so the right answers.
                put = form_of("PUT", path, "attributes", {}, picture)
                found = json_of("GET", path, None)
                for request, right in (
                    (put, 201),
                    (found, 200),
                    (json_of("DELETE", path, None), 204),
                    (found, 404),
                ):
                    status, _ = await client.ask(request)
                    wrong += status != right
                changes += 2
                await asyncio.sleep(0.1)

    async def watch() -> None:
        await asyncio.sleep(warm)
        while on():
            resident.append(served.resident())
            await asyncio.sleep(1)

    await asyncio.gather(*(search() for _ in range(8)), change("load-a"), change("load-b"), watch())
    tenth = max(1, len(resident) // 10)
    return {
        "seconds": seconds,
        "searches": asked,
        "changes": changes,
        "wrong": wrong,
        "resident_start": statistics.median(resident[:tenth]),
        "resident_end": statistics.median(resident[-tenth:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="A model folder. Default: the shipped model.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0.0, help="Seconds. Default: none.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dqecir-load-") as folder:
        index = Path(folder) / "index"
        shutil.copytree(arguments.index, index)
        starts = []
        for _ in range(3):
            served = Served(index, arguments.model)
            starts.append(served.start_seconds)
            served.stop()
        served = Served(index, arguments.model)
        try:
            model = Model(arguments.index, arguments.model)
            result: dict[str, Any] = {
                "machine": machine(),
                "items": len(open_index(index)),
                "start_seconds": statistics.median(starts),
                "runs": load(served, model, arguments.seconds, arguments.rounds),
            }
            if arguments.soak:
                result["soak"] = asyncio.run(soak(served, model, arguments.soak))
                print(json.dumps(result["soak"]), flush=True)
        finally:
            served.stop()
    write_json(arguments.out / NAME, result)


if __name__ == "__main__":
    main()
