"""The command line: joins the verbs, and turns what a user can put right into one line. Nothing here imports torch."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import refinebox
from refinebox.commands import (
    apply,
    demo,
    detectors,
    doctor,
    env,
    evaluate,
    export,
    info,
    memory,
    oracle_analysis,
    predict,
    refine,
    train,
)
from refinebox.commands.console import patient_streams
from refinebox.training.interruption import Interrupted

EXPECTED_ERRORS = (ValueError, OSError, FloatingPointError, MemoryError, Interrupted)


class OneLineErrors(TyperGroup):
    """Turns what a user can put right into one line and exit code 2; REFINEBOX_DEBUG=1 shows the traceback."""

    def main(self, *args: Any, **options: Any) -> Any:
        with patient_streams():
            return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with memory.advice(ctx):
                return super().invoke(ctx)
        except EXPECTED_ERRORS as error:
            if os.environ.get("REFINEBOX_DEBUG"):
                raise
            typer.echo(f"refinebox: {one_line(error)}", err=True)
            raise typer.Exit(getattr(error, "exit_code", 2)) from error


def one_line(error: Exception) -> str:
    """The message, without the traceback that a data-loading process puts before it."""
    text = str(error)
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


app = typer.Typer(cls=OneLineErrors, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(show: bool) -> None:
    if show:
        typer.echo(refinebox.__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Better boxes from a detector that stays as it is."""


app.command()(demo.demo)
app.command()(detectors.detectors)
app.command("oracle-analysis", epilog=oracle_analysis.EXAMPLE)(oracle_analysis.oracle_analysis)
app.command(epilog=train.EXAMPLE)(train.train)
app.command(epilog=apply.EXAMPLE)(apply.apply)
app.command(epilog=export.EXAMPLE)(export.export)
app.command("eval", epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command(epilog=refine.EXAMPLE)(refine.refine)
app.command(epilog=doctor.EXAMPLE)(doctor.doctor)
app.command(epilog=info.EXAMPLE)(info.info)
app.command(epilog=env.EXAMPLE)(env.env)
