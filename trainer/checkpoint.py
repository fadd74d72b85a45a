"""What a killed training leaves behind, so that the next one with the same command goes on.

A file beside `--out`, written whole every `every_s` seconds and when the program is told to stop
(SIGTERM, Ctrl-C), and removed once the model is sealed. It holds the networks that are trained
already and the one that is in training: weights, optimiser, rate, random numbers, the place in the
rows, curves. No row of the data is in it.

It is of one training: the rows, settings and versions that make the weights (not the threshold's
rate, unless it deals the rows differently, nor names and times). Of another training it is not
taken up, which is said, and the next save replaces it. Networks are told apart by their rows and
their kind, so that several trainings of one run each find their own.

The file begins with its format and the SHA-256 of the rest, for torch takes weights as they come:
of a file that a power cut left damaged nothing is taken up. It is read without running anything
that it holds (torch's `weights_only`).
"""

from __future__ import annotations

import hashlib
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from schemas.errors import OutsideError
from trainer.progress import say

_FORMAT = b"odradek-checkpoint-2\n"
State = dict[str, Any]


class Stopped(Exception):
    """The program was told to stop, and its place is kept."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number  # As a shell tells of a program that a signal ended.


class Checkpoint:
    """The file, and what stands in it. Without a path nothing is kept."""

    def __init__(
        self,
        path: Path | None = None,
        made_of: Mapping[str, str] | None = None,
        every_s: float = 30.0,
    ) -> None:
        """Take up what `path` holds, if it is of what `made_of` names: digests by what they are of.

        Raises:
            OutsideError: there is such a file, and it cannot be read.
        """
        self._path = path
        self._made_of = dict(made_of or {})
        self._every_s = every_s
        self._saved_at = time.monotonic()
        self._told: int | None = None
        self._warned = False
        self._done: dict[str, State] = {}
        self._going: dict[str, State] = {}
        if path is not None and path.exists():
            self._take_up(path)

    def training(self, what: str, *made_of: bytes) -> Training:
        """Return the place of one network's training: `what` it is, and what else it is made of."""
        key = hashlib.sha256(b"\x00".join((what.encode(), *made_of))).hexdigest()
        return Training(self, what, key)

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """Let SIGTERM and Ctrl-C end the block at a step of a training, its place kept.

        A second signal does what it did before; one that is ignored, as in a job of the background,
        stays so.

        Raises:
            Stopped: a signal came, and its place is kept.
            OutsideError: a signal came, and the file cannot be written.
        """
        if self._path is None or threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: one for number, one in handlers.items() if one is not signal.SIG_IGN}

        def told(number: int, _: FrameType | None) -> None:
            self._told = number
            for one, handler in before.items():
                signal.signal(one, handler)

        for number in before:
            signal.signal(number, told)
        try:
            yield
            if self._told is not None or self._path.exists():
                self._save()  # What comes after the training may be interrupted too.
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def remove(self) -> None:
        """Remove the file: the model is sealed."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            self._draft(self._path).unlink(missing_ok=True)  # A kill in mid-write may have left it.

    def finished(self, key: str) -> State | None:
        return self._done.get(key)

    def begun(self, key: str) -> State | None:
        return self._going.get(key)

    def due(self) -> bool:
        """Say whether it is time to save."""
        if self._path is None:
            return False
        return self._told is not None or time.monotonic() - self._saved_at >= self._every_s

    def save(self, key: str, state: State) -> None:
        """Write the file, with the place of the network in training.

        Raises:
            Stopped: the program was told to stop.
            OutsideError: it was told to stop, and the file cannot be written.
        """
        self._going = {key: state}
        self._save()

    def finish(self, key: str, state: State) -> None:
        """Keep a trained network; it is written with the next save."""
        self._going, self._done[key] = {}, state

    def _save(self) -> None:
        self._write()
        if self._told is not None:
            raise Stopped(self._told)

    def _write(self) -> None:
        assert self._path is not None  # noqa: S101  # `due` saw to it.
        content = io.BytesIO()
        torch.save((self._made_of, self._done, self._going), content)
        draft = self._draft(self._path)
        try:
            # Not synced: a kill loses nothing of it, and what a power cut spoils is noticed.
            with draft.open("wb") as file:
                file.write(_head(content.getbuffer()))
                file.write(content.getbuffer())
            with suppress(FileNotFoundError):  # Another fit to the same file put it there.
                draft.replace(self._path)
        except OSError as error:
            self._not_written(f"{self._path} cannot be written: {error.strerror or error}")
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        self._saved_at = time.monotonic()

    def _not_written(self, problem: str) -> None:
        """Say so, once: a training is not lost for want of what only a kill would need."""
        if self._told is not None:
            raise OutsideError(
                f"{problem}. The training ends here, for it was told to; the same command goes on "
                "from the last one written, if there is one"
            )
        if not self._warned:
            self._warned = True
            say(
                f"warning: {problem}. The training goes on; killed, it could not go on from here. "
                f"It is tried again every {self._every_s:g} s"
            )

    def _take_up(self, path: Path) -> None:
        try:
            held = path.read_bytes()
        except OSError as error:
            raise OutsideError(
                f"{path} cannot be read: {error.strerror or error}; wanted a checkpoint or no such "
                "file. Nothing was trained; move it away"
            ) from None
        start = len(_head(b""))
        if held[:start] != _head(held[start:]):
            say(f"{path} is no checkpoint that can be read; training starts anew and replaces it")
            return
        made_of, done, going = torch.load(io.BytesIO(held[start:]), weights_only=True)
        others = [what for what in self._made_of if made_of.get(what) != self._made_of[what]]
        if others:
            say(f"{path} is of other {' and '.join(others)}; training starts anew and replaces it")
            return
        self._done, self._going = done, going

    @staticmethod
    def _draft(path: Path) -> Path:
        return path.with_name(f".{path.name}.draft")


class Training:
    """One network's place in the file."""

    def __init__(self, checkpoint: Checkpoint, what: str, key: str) -> None:
        self._checkpoint = checkpoint
        self._what = what
        self._key = key

    def finished(self) -> State | None:
        """Return what `finish` kept, if it was in the file."""
        return self._checkpoint.finished(self._key)

    def begun(self) -> State | None:
        """Return the place where an earlier training stood, and say that it goes on from there."""
        state = self._checkpoint.begun(self._key)
        if state is not None:
            say(f"{self._what}: goes on after step {state['step']:,}, from the checkpoint")
        return state

    def step_ended(self, state: Callable[[], State]) -> None:
        """Save the place, made by `state`, if it is time to.

        Raises:
            Stopped: the program was told to stop.
            OutsideError: it was told to stop, and the file cannot be written.
        """
        if self._checkpoint.due():
            self._checkpoint.save(self._key, state())

    def finish(self, state: State) -> None:
        """Keep the trained network."""
        self._checkpoint.finish(self._key, state)


def _head(content: bytes | memoryview) -> bytes:
    return _FORMAT + hashlib.sha256(content).digest()
