"""What a person sees while a network trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EPOCH = "epoch {}/{}"
# A log holds some twenty lines of a training, however many epochs it has.
_LINES_MAX = 20
_SAY_EVERY_S = 10.0
_MINUTE_S = 60.0


class Reading:
    """Says every few seconds how many rows have been read, and how fast."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a `clock` of seconds."""
        self._clock = clock
        self._began = self._said = clock()

    def told(self, rows: int) -> None:
        """Take note that so many rows have been read in all."""
        now_s = self._clock()
        if now_s - self._said >= _SAY_EVERY_S:
            self._said = now_s
            say(f"{rows:,} rows read, {rows / (now_s - self._began):,.0f} a second")


class Watcher(Protocol):
    """Is told of each epoch that has ended; `epoch` counts from 1."""

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None: ...


class Lines:
    """Writes an epoch's losses as a line: the first, the last and some in between."""

    def __init__(self, epochs: int, what: str = EPOCH) -> None:
        self._left = TimeLeft(epochs)
        self._what = what
        self._epochs = epochs
        self._every = max(1, epochs // _LINES_MAX)
        self._unsaid: str | None = None

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        self._unsaid = (
            f"{self._what.format(epoch, self._epochs)}: loss {training_loss:.4f}, "
            f"on held-out events {validation_loss:.4f}{self._left.after(epoch, time.monotonic())}"
        )
        if epoch == 1 or epoch % self._every == 0:
            self.catch_up()

    def catch_up(self) -> None:
        """Write the latest epoch's line, unless it is written already."""
        if self._unsaid is not None:
            say(self._unsaid)
        self._unsaid = None


class TimeLeft:
    """How long a training takes to its end, by how long its epochs took since it began or went on.

    At most: it may stop early.
    """

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._first: tuple[int, float] | None = None

    def after(self, epoch: int, now_s: float) -> str:
        """Return what to say of it after an epoch that has just ended, if it is worth saying."""
        if self._first is None:
            self._first = epoch, now_s
            return ""
        first, then_s = self._first
        left_s = (now_s - then_s) / max(1, epoch - first) * (self._epochs - epoch)
        if left_s < _SAY_EVERY_S:
            return ""
        if left_s < 2 * _MINUTE_S:
            return f"; {left_s:.0f} s left"
        return f"; {left_s / _MINUTE_S:,.0f} min left"


class _Bar:
    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=epochs, losses="")

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        losses = f"loss {training_loss:.4f}, on held-out events {validation_loss:.4f}"
        self._progress.update(self._task, completed=epoch, losses=losses)


@contextmanager
def watch(epochs: int, what: str = EPOCH) -> Iterator[Watcher]:
    """Show the progress of a training of at most `epochs` epochs, on stderr.

    `what` tells of an epoch, with two places: for its number, and for how many there are.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = Lines(epochs, what)
        yield lines
        # The last epoch is shown even where the training stopped early.
        lines.catch_up()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[losses]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, epochs)


def say(message: str) -> None:
    """Tell the person at the terminal; stdout is for results alone."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201  # The trainer's one voice.
