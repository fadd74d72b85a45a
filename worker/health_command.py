"""`odradek-worker health`: what a container asks, by the worker's own port on this machine.

It imports next to nothing, so that a probe every few seconds costs next to nothing.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Sequence
from contextlib import closing

from schemas.errors import SettingsError

PREFIX = "ODRADEK_"
DEFAULTS = {"http_host": "0.0.0.0", "http_port": "9108"}  # noqa: S104  # As the worker's own.
# An address that means all of them is asked by the loopback's.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
TIMEOUT_S = 3.0

_HELP = """\
odradek-worker health [--ready] [--http-host HOST] [--http-port PORT]

Ask the worker of this machine whether it is alive; exit 0 if it is, else 1 and the reason.
--ready asks whether it takes events as well. Host and port are those that the worker has, by
ODRADEK_HTTP_HOST and ODRADEK_HTTP_PORT; another's port 0, any free one, cannot be known.
"""


def health(arguments: Sequence[str]) -> int:
    """Ask a worker how it is, say its answer, and return 0 or 1.

    Raises:
        SettingsError: an argument, the host or the port is none.
    """
    path, host, port = _asked(arguments)
    if path is None:
        sys.stdout.write(_HELP)
        return 0
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            well, text = answer.status == http.client.OK, answer.read().decode(errors="replace")
    except (UnicodeError, http.client.InvalidURL) as error:
        raise SettingsError(
            f"the host to ask is {host!r} ({error}); wanted a name or an address, by "
            "ODRADEK_HTTP_HOST or --http-host. Nothing was asked"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        well, text = False, f"{path} on {host} port {port} does not answer: {error}\n"
    (sys.stdout if well else sys.stderr).write(text)
    return 0 if well else 1


def given_address() -> dict[str, str]:
    """Return `http_host` and `http_port` of the worker beside us, as the environment has them."""
    return {name: os.environ.get(PREFIX + name.upper()) or DEFAULTS[name] for name in DEFAULTS}


def _asked(arguments: Sequence[str]) -> tuple[str | None, str, int]:
    """Return the path to ask, None for help, and where."""
    given = given_address()
    path: str | None = "/healthz"
    rest = iter(arguments)
    for argument in rest:
        flag, is_whole, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if argument in ("-h", "--help"):
            path = None
        elif argument == "--ready":
            path = "/readyz"
        elif flag.startswith("--") and name in DEFAULTS:
            given[name] = value if is_whole else next(rest, "")
        else:
            raise SettingsError(
                f"{argument!r} is no argument of health; wanted --ready, --http-host or "
                "--http-port. Nothing was asked"
            )
    port = given["http_port"]
    if path is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise SettingsError(
            f"the port to ask is {port!r}; wanted 1 to 65535, by ODRADEK_HTTP_PORT or --http-port. "
            "Nothing was asked"
        )
    host = given["http_host"]
    return path, LOOPBACK.get(host, host), int(port) if path is not None else 0
