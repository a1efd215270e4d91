"""The command line, called as a user calls it."""

from pathlib import Path

from typer.testing import CliRunner, Result

from refinebox.commands import app as cli

Words = list[str | Path]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    """What a command prints that ends well."""
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def the_line(result: Result) -> str:
    """The one line that a command ends with that does not."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("refinebox: ")
    assert "Traceback" not in result.output
    return lines[0]


def content(folder: Path) -> dict[str, bytes | None]:
    """Every file's bytes, and None for each folder."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
