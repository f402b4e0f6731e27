"""Dependencies go one way: a module imports only modules before it in docs/rooms.yaml."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.write_design import DOCS, read_rooms, written

from tests.docs.blocks import ALL, ROOT

PACKAGE = Path(__file__).parent.parent / "src" / "dqecir"
ENTRIES = {"__init__", "__main__"}
"""Modules that import from the package itself, or from the room of the commands."""
LOOSE = (*ENTRIES, "errors", "settings")
"""The only modules at the top of the package."""
NAMED_FOR_WHAT_THEY_SERVE = ("cli", "service.routes")
"""Rooms whose files are named after a command or an address, so the names stand elsewhere too."""

MODULES = [*LOOSE[2:], *(f"{room}.{module}" for room, modules in read_rooms().items() for module in modules)]
PLACE = {module: place for place, module in enumerate(MODULES)}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def imports_of(module: str, path: Path) -> set[str]:
    """Return the modules of the package that a file imports anywhere."""
    parents = ["dqecir", *module.split(".")]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = parents[: len(parents) - node.level + (path.name == "__init__.py")] if node.level else []
            source = ".".join([*inside, *([node.module] if node.module else [])])
            # What is imported from a package may be a module of it.
            names = [
                whole if (whole := f"{source}.{alias.name}").removeprefix("dqecir.") in FILES else source
                for alias in node.names
                if (source, alias.name) != ("dqecir", "__version__")
            ]
        found |= {name.removeprefix("dqecir").lstrip(".") for name in names if name.split(".")[0] == "dqecir"}
    return found


def test_every_module_has_a_place():
    packages = {module for module, path in FILES.items() if path.name == "__init__.py"}
    assert set(FILES) - packages - set(LOOSE) <= set(PLACE)
    assert set(PLACE) <= set(FILES)


@pytest.mark.parametrize("module", sorted(set(FILES) - ENTRIES))
def test_a_module_imports_only_what_stands_before_it(module):
    own = PLACE.get(module, max((PLACE[m] for m in PLACE if m.startswith(f"{module}.")), default=-1) + 1)
    for other in imports_of(module, FILES[module]):
        assert other in FILES, f"{module} imports {other or 'dqecir'}, which is not a module of the package"
        if other in PLACE:
            assert PLACE[other] < own, f"{module} imports {other}, which stands after it in docs/rooms.yaml"
        else:
            assert module.startswith(f"{other}."), f"{module} imports the package {other} instead of a module"


def test_an_import_is_found_in_every_form(tmp_path):
    source = "from dqecir import cli\nfrom dqecir.data import images\nimport dqecir.io.files\n"
    source += "from . import scoring\nfrom .scoring import score\nfrom dqecir.errors import DataError\n"
    (tmp_path / "any.py").write_text(source)
    found = imports_of("methods.any", tmp_path / "any.py")
    assert found == {"cli", "data.images", "io.files", "methods.scoring", "errors"}


def test_one_file_name_has_one_meaning():
    names = Counter(
        path.stem
        for module, path in FILES.items()
        if path.name != "__init__.py" and not module.startswith(NAMED_FOR_WHAT_THEY_SERVE)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_one_class_name_has_one_meaning():
    names = Counter(
        node.name
        for path in FILES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_the_design_shows_this_order():
    page = (DOCS / "design.md").read_text(encoding="utf-8")
    assert written(page, read_rooms()) == page and "<!-- rooms:" in page


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_every_file_that_is_named_is_there(page):
    root = PACKAGE.parent.parent
    named = re.findall(
        r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|js|yaml|md))?)`", (root / page).read_text(encoding="utf-8")
    )
    assert named
    assert [name for name in named if not any((folder / name).exists() for folder in (root, PACKAGE))] == []


def test_every_block_of_a_document_is_run_or_says_why_not():
    unmarked = []
    for block in ALL:
        page = block.place.partition(":")[0].rpartition("/")[2]
        by = re.fullmatch(r"run by (\S+)", block.mark)
        if by is not None:
            assert page in (ROOT / by[1]).read_text(encoding="utf-8"), f"{by[1]} does not run {block.place}"
        elif not block.is_run and not block.reader and not re.fullmatch(r"not run: \S.+", block.mark):
            unmarked.append(block.place)
    assert unmarked == [], "put <!-- run --> or <!-- not run: REASON --> before these (tests/docs/blocks.py)"
