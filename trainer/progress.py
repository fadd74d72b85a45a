"""What a person sees while a network trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# A log holds some twenty lines of a training, however many epochs it has.
_LINES_MAX = 20


class Watcher(Protocol):
    """Is told of each epoch that has ended; `epoch` counts from 1."""

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None: ...


class Lines:
    """Writes an epoch's losses as a line: the first, the last and some in between."""

    def __init__(self, epochs: int, what: str = "epoch") -> None:
        self._what = what
        self._epochs = epochs
        self._every = max(1, epochs // _LINES_MAX)
        self._unsaid: str | None = None

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        self._unsaid = (
            f"{self._what} {epoch}/{self._epochs}: loss {training_loss:.4f}, "
            f"on held-out events {validation_loss:.4f}"
        )
        if epoch == 1 or epoch % self._every == 0:
            self.catch_up()

    def catch_up(self) -> None:
        """Write the latest epoch's line, unless it is written already."""
        if self._unsaid is not None:
            say(self._unsaid)
        self._unsaid = None


class _Bar:
    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress = progress
        self._task = progress.add_task("training", total=epochs, losses="")

    def epoch_ended(self, epoch: int, training_loss: float, validation_loss: float) -> None:
        losses = f"loss {training_loss:.4f}, on held-out events {validation_loss:.4f}"
        self._progress.update(self._task, completed=epoch, losses=losses)


@contextmanager
def watch(epochs: int, what: str = "epoch") -> Iterator[Watcher]:
    """Show the progress of a training of at most `epochs` epochs, on stderr; `what` names one."""
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
