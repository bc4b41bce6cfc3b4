"""The `meddiff` command: thin verbs over the flows.

Answers go to stdout, everything else to stderr. Exit codes: 0 done (quarantined cases included), 1 nothing could be
done, 2 wrong usage. What a user can mend is one sentence, never a traceback.
"""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from flows import cli_apply, cli_bench, cli_compare, cli_data, cli_diff, cli_draw, cli_gc, cli_models, cli_services
from flows.terminal import err, out
from infra.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for module in (cli_models, cli_data, cli_apply, cli_draw, cli_diff, cli_gc, cli_compare, cli_services, cli_bench):
    for verb in module.VERBS:
        app.command()(verb)


def _show_version(wanted: bool) -> None:
    if wanted:
        out().print(version("meddiff"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Many public CT archives in, one chunked lake, a 3-D diffusion model and an evaluation table out."""
    if context.invoked_subcommand is None:
        out().print(context.get_help(), markup=False)


def run(arguments: list[str] | None = None) -> int:
    """Runs one command line and gives its exit code."""
    try:
        return app(arguments, prog_name="meddiff", standalone_mode=False) or 0
    except UserError as error:
        err().print(f"meddiff: {error}", markup=False)
        return 1
    except typer.TyperException as error:
        err().print(f"meddiff: {error.format_message()}", markup=False)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        err().print("meddiff: interrupted; the same command goes on where it stopped")
        return 130


def main() -> None:
    """The console script."""
    sys.exit(run())
