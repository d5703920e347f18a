"""The command line: the group of commands, and how every error ends.

Commands live in ``goldenctl.commands``; each parses, calls one function and prints. Nothing
heavier than click is imported before a command runs.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn, TextIO

import click

from goldenctl import __version__
from goldenctl.commands.attest import attest_command
from goldenctl.commands.bench import bench_command
from goldenctl.commands.blame import blame_command
from goldenctl.commands.cache import cache_command
from goldenctl.commands.check import check_command
from goldenctl.commands.diff import diff_command
from goldenctl.commands.doctor import doctor_command
from goldenctl.commands.export import export_command
from goldenctl.commands.faults import faults_command
from goldenctl.commands.goldens import list_command, log_command, show_command
from goldenctl.commands.import_ import import_command
from goldenctl.commands.include import include_command
from goldenctl.commands.infinicore import infinicore_group
from goldenctl.commands.init import init_command
from goldenctl.commands.inspect import inspect_command
from goldenctl.commands.manifest import manifest_command
from goldenctl.commands.plot import plot_command
from goldenctl.commands.record import record_command
from goldenctl.commands.remove import gc_command, rm_command
from goldenctl.commands.replay import replay_command
from goldenctl.commands.report import report_command
from goldenctl.commands.selftest import selftest_command
from goldenctl.commands.synth import synth_command
from goldenctl.commands.trace import trace_command
from goldenctl.commands.transfer import pull_command, push_command
from goldenctl.commands.verify import verify_command
from goldenctl.encoding import let_everything_print
from goldenctl.errors import (
    EXIT_INTERRUPTED,
    EXIT_MISSING,
    EXIT_USAGE,
    GoldenctlError,
    printable,
    refused_by_machine,
)
from goldenctl.folders import no_room

EXIT_INTERNAL = 70
EXIT_TERMINATED = 143  # as of a program that SIGTERM ended, but it leaves nothing behind
EXIT_PIPE = 141  # as of a program that SIGPIPE ended: what the verdict was is not known


SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Record, replay, judge": (
        record_command,
        replay_command,
        trace_command,
        diff_command,
        blame_command,
        verify_command,
        bench_command,
        selftest_command,
    ),
    "Look": (inspect_command, report_command, plot_command),
    "Golden sets": (
        init_command,
        list_command,
        log_command,
        show_command,
        manifest_command,
        check_command,
        attest_command,
        rm_command,
        gc_command,
    ),
    "Move": (push_command, pull_command, export_command, import_command, include_command),
    "Prepare": (synth_command, infinicore_group, faults_command, doctor_command, cache_command),
}


class _Sections(click.Group):
    """A group whose help lists the commands by what they are for."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            rows = [(str(c.name), c.get_short_help_str(limit=60)) for c in commands]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=12)


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="goldenctl")
def cli() -> None:
    """Record a transformer's tensors in PyTorch, replay them on another engine, and find the
    op that goes wrong first.

    \b
    Exit codes: 0 within tolerance, 1 beyond tolerance, 2 wrong usage,
    3 something needed is missing, 4 a file is damaged or does not match,
    70 internal error, 130 interrupted, 141 its output was cut off, 143 terminated.
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)


def main() -> None:
    """Run the command line and exit; every error is one line on standard error."""
    let_everything_print(sys.stdout, sys.stderr)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants to be left alone
            signal.signal(number, _terminate)
    sys.exit(run(sys.argv[1:]))


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which everything that cleans up after Ctrl-C takes for that."""


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    try:
        code = int(cli.main(arguments, prog_name="goldenctl", standalone_mode=False) or 0)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except GoldenctlError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return EXIT_USAGE
    except click.ClickException as error:
        usage = getattr(error, "ctx", None)
        hint = f"; see {usage.command_path} --help" if usage is not None else ""
        said = printable(error.format_message())
        said = said.rstrip(".") + hint if not said.endswith("?") else f"{said} S{hint[3:]}"
        return _fail(said, EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__ or error, _Terminated):
            return _fail("terminated; nothing half-written was left", EXIT_TERMINATED)
        return _fail("interrupted; nothing half-written was left", EXIT_INTERRUPTED)
    except (BrokenPipeError, SystemExit):  # rich exits where its pipe is broken
        _drop(sys.stdout)
        return EXIT_PIPE
    except MemoryError:
        return _fail("there is not enough memory; see ulimit -v, or free some", EXIT_MISSING)
    except OSError as error:
        _drop(sys.stdout)
        refusal = no_room(error) if error.filename else None
        refusal = refusal or refused_by_machine(error, str(error.filename or "a system call"))
        if refusal is not None:
            return _fail(str(refusal), refusal.exit_code)
        where = error.filename or "standard output or a file"
        return _fail(printable(f"{where}: {error.strerror}"), EXIT_USAGE)
    except Exception as error:
        if os.environ.get("GOLDENCTL_TRACEBACK"):
            raise
        what = printable(f"{type(error).__name__}: {error}")
        hint = "please report it with the output of GOLDENCTL_TRACEBACK=1"
        return _fail(f"internal error, {what}; {hint}", EXIT_INTERNAL)


def _fail(message: str, code: int) -> int:
    try:
        click.echo(f"goldenctl: {message}", err=True)
    except OSError:  # where nobody can be told, the exit code still says it
        _drop(sys.stderr)
    return code


def _drop(stream: TextIO) -> None:
    """Where a stream takes no more, let Python not try it again at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
