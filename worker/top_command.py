"""`odradek-worker top`: workers' metrics in a terminal, for those without dashboards."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn
from urllib.parse import urlsplit

from schemas.errors import SettingsError
from worker.background import Call
from worker.fetch import late
from worker.health_command import LOOPBACK, given_address
from worker.scrape import TIMEOUT_S, Between, Scrape, scrape
from worker.top import Line, Seen, cut, plain, view

EVERY_S = 2.0
ONCE_S = 1.0
GIVE_UP_S = TIMEOUT_S + 0.5  # A scrape ends by itself, except in the system's resolver.
PROBLEM_COLUMNS = 200
KEPT = 150  # Looks at one model that are kept: flags are counted since the first of them.
_ABOUT = """\
Watch workers by their /metrics: state, model, rates, flags against their target, lag, latency,
where time goes, drift. URL is HOST:PORT or http://HOST:PORT/metrics; without any, the worker of
this machine is asked, by ODRADEK_HTTP_HOST and ODRADEK_HTTP_PORT. Where the output is no terminal,
or no capable one (TERM=dumb), or with --once: one view in plain text, flags counted since each
worker's start; exit 0 if all workers answered, else 1. Else until Ctrl-C, flags counted since the
first look that saw the model.
"""
_SCREEN, _BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"
_RED, _BOLD, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[0m"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. Nothing was asked; see odradek-worker top --help")


class Watched:
    """One worker, and the looks at it that are kept."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._looks: deque[Scrape] = deque(maxlen=KEPT)  # Of one model.
        self._before: Scrape | None = None  # The look before the last.
        self._problem = ""
        self._call: Call | None = None  # A look under way.
        self._came: list[Scrape] = []  # What it brought.

    def ask(self) -> None:
        """Begin to look, unless that is under way."""
        if self._call is None:
            self._call = Call(lambda: self._came.append(scrape(self.url)))

    def hear(self, wait_s: float) -> None:
        """Take note of what came within this time."""
        if self._call is None or not self._call.wait(wait_s):
            self._problem = late(GIVE_UP_S)
            return
        error, self._call = self._call.error, None
        self._problem = "" if error is None else cut(plain(str(error)), PROBLEM_COLUMNS)
        if error is None:
            self._note(self._came.pop())

    def _note(self, look: Scrape) -> None:
        self._before = self._looks[-1] if self._looks else look
        if _models(look) != _models(self._before):
            self._looks.clear()  # Flags of two models are no rate of either.
        self._looks.append(look)

    def seen(self, *, since_start: bool) -> Seen:
        """Return what was seen lately and over all looks, or since the worker's own start."""
        name = urlsplit(self.url).netloc
        if self._problem or self._before is None:
            return Seen(name, problem=self._problem)
        first, last = self._looks[0], self._looks[-1]
        longer = Between(Scrape(0.0) if since_start else first, last)
        return Seen(name, Between(self._before, last), longer)

    @property
    def answers(self) -> bool:
        return not self._problem


def look(workers: Sequence[Watched]) -> None:
    """Look at all workers at the same time; wait for none longer than `GIVE_UP_S`."""
    for worker in workers:
        worker.ask()
    deadline = time.monotonic() + GIVE_UP_S
    for worker in workers:
        worker.hear(max(0.0, deadline - time.monotonic()))


def _models(look: Scrape) -> set[str]:
    """Return the digest of the model that scores; before the first, none."""
    return {labels["digest"] for labels, on in look.series("odradek_model_info") if on}


def top(arguments: Sequence[str]) -> int:
    """Show workers until interrupted, or once; return 0, or 1 if one did not answer then.

    Raises:
        SettingsError: an argument is wrong.
    """
    parser = _Parser("odradek-worker top", description=_ABOUT, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument("--every", type=float, default=EVERY_S, help="seconds (default: 2)")
    parser.add_argument("--once", action="store_true", help="one view, in plain text")
    chosen = parser.parse_args(arguments)
    if not 0.1 <= chosen.every <= 3600:
        raise SettingsError(f"--every is {chosen.every:g}; wanted 0.1 to 3600 seconds")
    workers = [Watched(_url(text)) for text in chosen.urls or [_own()]]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # A name may have what its encoding has not.
    if chosen.once or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return _once(workers)
    return _live(workers, chosen.every)


def _once(workers: Sequence[Watched]) -> int:
    for pause_s in (ONCE_S, 0.0):
        look(workers)
        time.sleep(pause_s)
    lines = view([worker.seen(since_start=True) for worker in workers], time.time())
    sys.stdout.write("\n".join(line.text for line in lines) + "\n")
    return 0 if all(worker.answers for worker in workers) else 1


def _live(workers: Sequence[Watched], every_s: float) -> int:
    coloured = not os.environ.get("NO_COLOR")
    with _own_screen(), suppress(KeyboardInterrupt):
        while True:
            look(workers)
            title = f"odradek-worker top   {time.strftime('%H:%M:%S')}   every {every_s:g} s"
            seen = [worker.seen(since_start=False) for worker in workers]
            lines = [Line(f"{title}   Ctrl-C ends"), Line(""), *view(seen, time.time())]
            sys.stdout.write(frame(lines, shutil.get_terminal_size(), coloured=coloured))
            sys.stdout.flush()
            time.sleep(every_s)
    return 0


def frame(lines: Sequence[Line], size: os.terminal_size, *, coloured: bool) -> str:
    """Return what draws these lines over those before, cut to the terminal's size."""
    drawn = []
    for line in lines[: size.lines - 1]:
        colour = _RED if line.alarming else _BOLD if line.heading else ""
        text = cut(line.text, size.columns)
        drawn.append((f"{colour}{text}{_PLAIN}" if coloured and colour else text) + _TO_LINE_END)
    return _HOME + "\r\n".join(drawn) + _TO_SCREEN_END


@contextmanager
def _own_screen() -> Iterator[None]:
    """Draw on the terminal's other screen, and leave it as it was, however this ends."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.write(_SCREEN)
    try:
        yield
    finally:
        sys.stdout.write(_BACK)
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, before)


def _own() -> str:
    """Return where the worker of this machine is, by the settings that it has too."""
    host, port = given_address().values()
    host = LOOPBACK.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url(text: str) -> str:
    """Return the address of a worker's metrics.

    Raises:
        SettingsError: it is none.
    """
    whole = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(whole)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        known = None
    if not known:
        raise SettingsError(
            f"{text!r} is no worker's address; wanted HOST:PORT or http://HOST:PORT/metrics. "
            "Nothing was asked"
        )
    return whole if parts.path.strip("/") else f"{whole.rstrip('/')}/metrics"
