"""Scripts replace their own part of a page, and nothing else."""

import re

import pytest
from benchmarks.pages import with_part, write_part

from tests.docs.blocks import ROOT

PAGE = "before\n\n<!-- speed: written by benchmarks/one.py -->\n\nold\n\n<!-- end of speed -->\n\nafter\n"


def test_only_the_named_part_is_replaced():
    found = with_part(PAGE, "speed", ["new \\1", "", "lines", ""])
    assert found == PAGE.replace("old", "new \\1\n\nlines")
    assert with_part(found, "speed", ["old"]) == PAGE


def test_a_part_that_is_missing_or_twice_there_is_refused():
    with pytest.raises(ValueError, match="0 parts named 'size'"):
        with_part(PAGE, "size", ["new"])
    with pytest.raises(ValueError, match="2 parts named 'speed'"):
        with_part(PAGE + PAGE, "speed", ["new"])


def test_a_refused_part_leaves_the_file(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE)
    with pytest.raises(ValueError, match="named 'size'"):
        write_part(path, "size", ["new"])
    assert path.read_text() == PAGE


def test_every_written_part_of_the_documents_names_its_script_and_ends():
    mark = re.compile(r"<!-- ([\w -]+): written by (\S+) -->")
    pages = [ROOT / "README.md", ROOT / "recipes" / "ship-shop-card.md", *(ROOT / "docs").glob("*.md")]
    parts = {(path.name, name): script for path in pages for name, script in mark.findall(path.read_text())}
    assert len(parts) > 15
    for (page, name), script in parts.items():
        assert (ROOT / script).is_file(), (page, name, script)
    for path in pages:
        text = path.read_text()
        ends = re.findall(r"<!-- end of ([\w -]+) -->", text)
        assert ends == [name for name, _ in mark.findall(text)], path
