"""Data flows one way: nothing imports what stands to its right on the road."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "dqecir"
ROAD = [
    {"files", "progress", "stopwatch", "threads", "strict", "data"},
    {"backbones"},
    {"attributes", "scoring", "losses", "negatives", "schedules"},
    {"methods"},
    {"model"},
    {"public_weights", "recipe", "evaluation", "index", "conversion"},
    {"training_data", "mining", "pretraining_data"},
    {"training", "operations"},
    {"steering", "explanation", "editing"},
    {"pretraining", "runs", "retriever", "sheets", "examples"},
    {"demo", "comparison", "figures", "reproduction", "fitting"},
    {"service"},
    {"cli"},
]
PLACE = {room: place for place, rooms in enumerate(ROAD) for room in rooms}


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("dqecir.")}
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_file_has_a_place_on_the_road():
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(PLACE)


def test_nothing_imports_what_stands_to_its_right():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room == "__init__":
            continue
        wrong += [f"{room} imports {other}" for other in imports_of(path) if PLACE[other] > PLACE[room]]
    assert not wrong


def test_files_stay_short():
    longest = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name for name, lines in longest.items() if lines > 400} == set()
