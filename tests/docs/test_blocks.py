"""Blocks of documents that are marked to be run (blocks.py), and the options of all their commands.

Blocks are run page by page, in order, in a folder that has what the documents name: a shop SHOP with an index
INDEX, a folder PICTURES, a model folder MODEL and so on.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer

from dqecir import ComposedRetriever
from dqecir.cli import app
from dqecir.settings import read_settings
from tests.docs.blocks import ALL, PAGES, ROOT, blocks, commands_of

RUN = [page for page in PAGES if any(block.is_run for block in blocks(page))]


@pytest.mark.parametrize("block", list(filter(commands_of, ALL)), ids=lambda block: block.place)
def test_every_command_and_option_exists(block):
    for words in commands_of(block):
        command = typer.main.get_command(app)
        rest = words[1:]
        while commands := getattr(command, "commands", None):
            assert rest[0] in commands, f"{' '.join(words)}: there is no command {rest[0]}"
            command, rest = commands[rest[0]], rest[1:]
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        given = [word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)]
        assert [name for name in given if name not in known] == [], " ".join(words)
        files = [word for word in rest if word.startswith("recipes/")]
        assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", [block for block in ALL if block.reader], ids=lambda block: block.place)
def test_a_file_of_the_documents_can_be_read(block, tmp_path):
    module, name = block.reader
    reader = getattr(importlib.import_module(module), name)
    (path := tmp_path / "example.yaml").write_text(block.text, encoding="utf-8")
    assert read_settings(path, reader) if isinstance(reader, type) else reader(path)


@pytest.fixture(scope="module")
def material(tmp_path_factory, garments_folder) -> Path:
    """Make the files that blocks use: a shop, an index, pictures, a model folder."""
    folder = tmp_path_factory.mktemp("documents")
    pictures = sorted((garments_folder / "images").iterdir())
    places = [f"{kind}/{number}.jpg" for kind in ("dresses", "shirts") for number in (1, 2, 3, 5, 7, 9)]
    places.append("images/000050.jpg")
    rows = ["image,color,sleeves,price"]
    for number, (place, picture) in enumerate(zip(places, pictures[::17][: len(places)], strict=True)):
        (folder / "SHOP" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder / "SHOP" / place)
        rows.append(f"{place},{'red' if number % 2 else 'blue'},long,{10 + 5 * number}")
    (folder / "SHOP" / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name, some in (("PICTURES", pictures[:3]), ("MORE", pictures[3:5])):
        (folder / name).mkdir()
        for picture in some:
            shutil.copy(picture, folder / name)
    for copy in ("PICTURES/this.jpg", "a.jpg", "b.jpg", "dress.jpg"):
        shutil.copy(pictures[7], folder / copy)
    line = '{"id": "1", "text": "is red and has long sleeves"}\n'
    (folder / "texts.jsonl").write_text(line, encoding="utf-8")
    retriever = ComposedRetriever.from_pretrained()
    retriever.build_index(folder / "SHOP", folder / "INDEX", quiet=True)
    retriever.save_pretrained(folder / "MODEL")
    shutil.copytree(folder / "INDEX", folder / "FIT" / "index")
    shutil.copytree(folder / "MODEL", folder / "FIT" / "model")
    return folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, material, tmp_path, monkeypatch, dqecir):
    monkeypatch.chdir(shutil.copytree(material, tmp_path / "work"))
    names: dict[str, object] = {}
    for block in blocks(page):
        if not block.is_run:
            continue
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
            continue
        for line in block.commands():
            program, *words = shlex.split(line, comments=True)
            assert program == "dqecir", f"{block.place}: only dqecir is run; except the line {line!r}"
            code, _, err = dqecir(*words)
            assert code == 0, f"{block.place}: {line}: {err}"
