"""The commands: each reads its arguments, calls one function, and prints the result.

Results go to standard output, progress and messages to standard error. An error in the input is one sentence,
and the exit status is then not 0.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.markup import escape

from dqecir import __version__
from dqecir.cli.arguments import output
from dqecir.cli.catalogue import catalogue_app
from dqecir.cli.doctor import doctor
from dqecir.cli.encoders import encoders_app
from dqecir.cli.index import index_app, search
from dqecir.cli.measuring import evaluate_command, figures, protocol_command, reproduce_command
from dqecir.cli.serving import serve
from dqecir.cli.texts_and_pictures import describe, edit, read
from dqecir.cli.training import compare, convert_command, pretrain, train
from dqecir.io.progress import console
from dqecir.io.starting import let_threads_sleep

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Composed image retrieval: search pictures with a picture and a text.",
)
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(index_app, name="index")
app.add_typer(encoders_app, name="encoders")
app.command("search")(search)
app.command("read")(read)
app.command("describe")(describe)
app.command("edit")(edit)
app.command("serve")(serve)
app.command("doctor")(doctor)
app.command("pretrain")(pretrain)
app.command("train")(train)
app.command("compare")(compare)
app.command("convert")(convert_command)
app.command("evaluate")(evaluate_command)
app.command("figures")(figures)
app.command("protocol")(protocol_command)
app.command("reproduce")(reproduce_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"dqecir {__version__}")
        raise typer.Exit


@app.callback()
def dqecir(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Accept the options that stand before a command; their callbacks act on them."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")] = Path("demo"),
    items: Annotated[int, typer.Option(min=300, help="Number of garments to draw.")] = 2000,
) -> None:
    """Draw a catalogue, index it, ask twelve questions, measure, and write a report."""
    from dqecir.evaluation.table import as_table
    from dqecir.experiments.demo import run_demo

    output.print(as_table("percent", run_demo(out, items)))


def main() -> None:
    """Run the command line; an expected error is one sentence on standard error and exit 1."""
    let_threads_sleep()
    from dqecir.errors import DataError, trouble_with_a_file

    # Hide warnings of libraries: they name no file, and users need not do anything about them.
    warnings.filterwarnings("ignore", module=r"(PIL|openpyxl)\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal cannot show are escaped.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
        sys.stdout.flush()
    except DataError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The program that reads the output has ended. Python would flush again at exit, and report an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(trouble_with_a_file(error))
    except KeyboardInterrupt:
        console.print("stopped; a training run resumes when it is started again")
        sys.exit(130)


def _fail(sentence: str) -> NoReturn:
    console.print(f"[red]dqecir:[/] {escape(sentence)}")
    sys.exit(1)
