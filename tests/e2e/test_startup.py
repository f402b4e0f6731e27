"""Imports of commands: a command must start fast, and torch and transformers take seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from dqecir import __version__


def run(code: str, *arguments: object) -> tuple[str, set[str]]:
    """Run ``code`` in a new interpreter; return its output and the imported modules."""
    shown = "import atexit, sys; atexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))"
    command = [sys.executable, "-c", f"{shown}\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.split())


def dqecir(*arguments: object) -> tuple[str, set[str]]:
    return run("from dqecir.cli import main; main()", *arguments)


def imported(code: str) -> set[str]:
    return run(code)[1]


def test_a_method_is_found_without_the_others():
    modules = imported("from dqecir.methods.method import method_named; method_named('dqe_values')")
    assert {"dqecir.methods.dqe", "dqecir.methods.dqe_values"} <= modules
    assert not {"dqecir.methods.covr", "dqecir.methods.searle"} & modules


def test_a_method_in_a_file_of_another_name_is_found():
    assert "dqecir.methods.covr" in imported(
        "from dqecir.methods.method import method_named; method_named('covr2')"
    )


def test_a_model_is_read_without_transformers():
    assert "transformers" not in imported(
        "from dqecir.model.composed_model import ComposedModel; ComposedModel.from_pretrained()"
    )


@pytest.fixture(scope="module")
def index(garments_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("startup") / "index"
    dqecir("index", "build", "--images", garments_folder, "--out", folder)
    return folder


def test_facts_and_help_need_no_torch(index, garments_folder):
    assert dqecir("--version")[0] == f"dqecir {__version__}\n"
    info, check = ["index", "info", "--index", index], ["catalogue", "check", garments_folder]
    for arguments in (["--help"], ["--version"], ["index", "--help"], ["encoders", "list"], info, check):
        said, modules = dqecir(*arguments)
        assert said
        assert not {"torch", "transformers", "matplotlib", "fastapi"} & modules, arguments


def test_the_module_runs_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "dqecir", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"dqecir {__version__}\n"


def test_a_search_imports_nothing_that_it_does_not_need(index, garments_folder):
    image = min(Path(garments_folder).rglob("*.jpg"))
    said, modules = dqecir("search", "--index", index, "--image", image, "--text", "is black", "-k", "3")
    assert len(said.splitlines()) == 4
    assert said.splitlines()[-1] == "Read as color: black."
    heavy = {"transformers", "accelerate", "tensorboard", "matplotlib", "diffusers", "fastapi", "sympy"}
    assert not heavy & modules
