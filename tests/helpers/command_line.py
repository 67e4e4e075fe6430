"""The command line, in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from paretobit.cli.main import app


def run(*arguments: object) -> Result:
    """A command with its arguments: exit code, standard output and error."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ok(*arguments: object) -> str:
    """What a command prints that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object) -> str:
    """The one error, on one line, of a command that must refuse its input."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())
