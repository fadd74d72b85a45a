"""The worker's program: a command, and its exit code.

odradek-worker run                     score a topic until told to stop
odradek-worker redrive                 score its dead letters again, those that are there now
odradek-worker check MODEL.onnx        is this file fit to serve? exit 0, or 1 with the reason
odradek-worker score MODEL.onnx FILE   score a file, one score record a line on stdout
odradek-worker health [--ready]        is the worker of this machine alive, or ready? exit 0, or 1
odradek-worker top [URL ...]           watch workers by their metrics, in a terminal
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Sequence

from schemas.errors import EXIT_USER, SettingsError, did_you_mean, run_program

COMMANDS = ("run", "redrive", "check", "score", "health", "top")


def cli() -> None:
    """The entry point of `odradek-worker`."""
    code = run_program(functools.partial(main, sys.argv[1:]))
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # Nobody reads it, or it is closed.
            stream.flush()
    # Not sys.exit: a thread of librdkafka's may call into an interpreter that is being taken down.
    # A worker that had said why it stopped died of signal 11 so.
    os._exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run one of the worker's commands and return its exit code."""
    match arguments:
        case [] | ["-h" | "--help", *_]:
            sys.stdout.write(__doc__ or "")
            return 0 if arguments else EXIT_USER
        case [name, *rest] if name in COMMANDS:
            return _command(name, rest)
        case [name, *_]:
            raise SettingsError(
                f"{name!r} is not a command{did_you_mean(name, COMMANDS)}; wanted one of "
                f"{', '.join(COMMANDS)}"
            )
    raise AssertionError(arguments)


def _command(name: str, arguments: Sequence[str]) -> int:
    """Run a command. Each imports what it needs: `health` takes 0.04 s so, and 1.5 s with all."""
    match name:
        case "run":
            from worker.run_command import run

            return run(arguments)
        case "redrive":
            from worker.redrive_command import redrive

            return redrive(arguments)
        case "check":
            from worker.offline import check

            return check(arguments)
        case "score":
            from worker.offline import score

            return score(arguments)
        case "health":
            from worker.health_command import health

            return health(arguments)
        case "top":
            from worker.top_command import top

            return top(arguments)
    raise AssertionError(name)


if __name__ == "__main__":
    cli()
