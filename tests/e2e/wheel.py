"""Install a wheel into a new environment, and run its demonstration from an empty folder.

    python tests/e2e/wheel.py dist/*.whl

The fresh environment takes the dependencies of this one, and dqecir from the wheel alone.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ITEMS = 300
NEEDED = """
from pathlib import Path
import dqecir
from dqecir.service.routes.page import page_files
folder = Path(dqecir.__file__).parent
assert Path({environment!r}) in folder.parents, f"dqecir is that of {{folder}}"
assert {{"index.html", "main.js", "style.css", "words.de.json", "embed.js"}} <= page_files().keys()
"""


def main() -> None:
    [wheel] = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        environment, empty = Path(work).resolve() / "environment", Path(work) / "empty"
        empty.mkdir()
        venv.create(environment, symlinks=True)
        python = environment / "bin" / "python"
        [packages] = environment.glob("lib/python*/site-packages")
        install = [sys.executable, "-m", "pip", "--python", str(python), "install"]
        run([*install, "--quiet", "--no-deps", str(wheel.resolve())], empty)
        # An editable dqecir of this environment does not come along: its own .pth file is not read.
        (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        run([str(python), "-I", "-c", NEEDED.format(environment=str(environment))], empty)
        run([str(environment / "bin" / "dqecir"), "demo", "--items", str(ITEMS)], empty)
        if not (empty / "demo" / "report.html").is_file():
            sys.exit("the demonstration wrote no report")
    print("the wheel runs the demonstration from an empty folder")


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, without the variables of this environment."""
    subprocess.run(command, cwd=folder, env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}, check=True)


if __name__ == "__main__":
    main()
