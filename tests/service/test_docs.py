"""docs/service.md and docs/embedding.md: commands and keys work, and limits are those of the code."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dqecir.service.configuration import Limits, ServiceSettings
from dqecir.service.keys import Keys
from tests.conftest import PATIENCE

DOCUMENT = Path(__file__).parents[2] / "docs" / "service.md"
EMBEDDING = DOCUMENT.with_name("embedding.md")


def limits() -> str:
    """Return the table of limits, from the code."""
    defaults, settings = Limits(), ServiceSettings(index=Path("INDEX"))
    rows = {
        "a picture": f"{defaults.bytes:,} bytes, {defaults.pixels:,} pixels",
        "a body without its picture": f"{defaults.body:,} bytes",
        "time for a body to arrive": f"{defaults.body_seconds:g} seconds",
        "an answer": f"within {defaults.seconds:g} seconds; an edit within {defaults.edit_seconds:g}",
        "requests that wait for the model": f"{settings.queue}; a further one gets status 429",
        "requests that the model answers together": str(settings.batch),
        "cache of items' image tokens": f"{settings.tokens_kept // 10**6} MB",
        "cache of thumbnails": f"{settings.thumbnails_kept // 10**6} MB",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def test_the_limits_are_those_of_the_code():
    text = DOCUMENT.read_text()
    head, _, rest = text.partition("<!-- limits -->\n")
    old, _, tail = rest.partition("<!-- /limits -->")
    if os.environ.get("DQECIR_WRITE_DOCS"):
        DOCUMENT.write_text(f"{head}<!-- limits -->\n{limits()}\n<!-- /limits -->{tail}")
    else:
        assert old == f"{limits()}\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_work(process, retriever, tmp_path):
    (block,) = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    item = next(iter(retriever.index.entries()))[0]
    told = subprocess.run(
        ["bash", "-eux", "-c", block],
        cwd=tmp_path,
        env={**os.environ, "SERVICE": process.address, "ITEM": item},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count('"answers"') == 2
    assert (tmp_path / "picture.jpg").read_bytes().startswith(b"\xff\xd8")
    assert '{"deleted":0}' in told.stdout.replace(" ", "")


def test_the_key_of_a_page_is_read(tmp_path):
    (line,) = re.findall(r"```\n(embed:.*?)```", EMBEDDING.read_text(), re.DOTALL)
    (tmp_path / "keys").write_text(line)
    keys = Keys.read(tmp_path / "keys", local=True)
    assert keys.origins == {"https://shop.example", "https://www.shop.example"}
    assert keys.needed == {"read": True, "write": True}
