"""What a person sees while events stream: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.books import Books
from demo.events import ANOMALIES, NORMAL, kind_of
from schemas.score import Score

PLAIN_EVERY_S = 2.0
RATE_WINDOW_S = 2.0


@dataclass
class Moment:
    """What the view shows, beside the books."""

    sent: int
    outputs_per_s: float
    worker: str


class RateMeter:
    """Events a second over the last moments."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def rate(self, count: int, now: float) -> float:
        """Return the rate, told the count so far; `now` is monotonic seconds."""
        self._points.append((now, count))
        self._points = [point for point in self._points if now - point[0] <= RATE_WINDOW_S]
        (since, first), (until, last) = self._points[0], self._points[-1]
        return (last - first) / (until - since) if until > since else 0.0


class View:
    """Shows the books while they fill."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._next_line = 0.0
        self._live = (
            Live(console=console, refresh_per_second=8, transient=False)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, books: Books, moment: Moment) -> None:
        """Show the state of things."""
        if self._live:
            self._live.update(self._panel(books, moment))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + PLAIN_EVERY_S
            self._console.print(_numbers(books, moment), soft_wrap=True, highlight=False)
            if books.latest_flagged:
                flagged = books.latest_flagged[-1]
                self._console.print(
                    f"  flagged: {what_is(flagged)}, p = {flagged.p_value:.2g}, "
                    f"{gave_away(flagged)}",
                    soft_wrap=True,
                    highlight=False,
                )

    def _panel(self, books: Books, moment: Moment) -> Panel:
        flagged = Table(box=None, expand=True, pad_edge=False, title="latest flagged events")
        flagged.add_column("what it is *", no_wrap=True)
        flagged.add_column("score", justify="right")
        flagged.add_column("p-value", justify="right")
        flagged.add_column("what gave it away: seen, and what the model expected", ratio=1)
        for score in books.latest_flagged:
            style = "yellow" if what_is(score) == NORMAL else ""
            flagged.add_row(
                what_is(score),
                f"{score.score:.2f}",
                f"{score.p_value:.1e}",
                gave_away(score),
                style=style,
            )
        letters = Table(box=None, expand=True, pad_edge=False, title="latest dead letters")
        letters.add_column("reason", no_wrap=True)
        letters.add_column("detail", ratio=1, no_wrap=True)
        for letter in books.latest_dead_letters:
            letters.add_row(letter.reason, letter.detail)
        note = Text("* the player knows; the model and the worker do not", style="dim")
        body = Group(_numbers(books, moment), "", flagged, "", letters, "", note)
        return Panel(body, title=self._title, border_style="cyan")


def what_is(score: Score) -> str:
    """Return what an event really is, which the player hid in its id."""
    kind = kind_of(score.event_id)
    return ANOMALIES.get(kind, kind)


def gave_away(score: Score, features: int = 2) -> str:
    """Return the features with the largest shares of a score, in words."""
    return "; ".join(
        f"{top.name} {_value(top.value)} (expected {_value(top.expected)}) {top.share:.0%}"
        for top in score.top_features[:features]
    )


def _value(value: float | str | None) -> str:
    if value is None:
        return "missing"
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) >= 0.01 else "0"


def _numbers(books: Books, moment: Moment) -> str:
    median, high = books.latency_ms()
    latency = f"p50 {median:.0f} ms  p99 {high:.0f} ms" if books.latencies_ms else "-"
    return (
        f"sent {moment.sent:,}   out {len(books.verdicts):,}   {moment.outputs_per_s:,.0f}/s   "
        f"latency {latency}   flagged {books.flagged:,}   "
        f"dead letters {books.dead_letters.total():,}   repeats {books.repeats:,}   {moment.worker}"
    )
