"""Whose fault an error is, and so the exit code of both programs.

0 all went well; 1 our own fault (a bug: traceback and all); 2 the user's mistake;
3 the outside world (a broker, credentials, a disk). The text of an error always says
three things: what was seen, what was wanted, and what happens now.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable

EXIT_USER = 2
EXIT_OUTSIDE = 3


class UserError(Exception):
    """Something the person who called us can mend: a setting, a file, a flag."""


class SettingsError(UserError):
    """One or more settings are wrong; the text names every one of them."""


class DataError(UserError):
    """A data file cannot be used as it is."""


class OutsideError(Exception):
    """The world around us does not do what we need: broker, network, rights, disk."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, or nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def run_program(program: Callable[[], int]) -> int:
    """Run `program` and return its exit code; foreseen errors become one message on stderr."""
    try:
        return program()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # The one place that speaks.
        return EXIT_USER
    except OutsideError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OUTSIDE
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nobody is left to tell.
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
