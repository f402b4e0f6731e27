"""What a command imports: it should start at once, and torch and transformers take seconds."""

import subprocess
import sys


def imported(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``code``."""
    shown = "import sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}"], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


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
