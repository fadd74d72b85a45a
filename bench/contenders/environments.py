"""Environments of their own, made by uv at their first use: one for each framework.

They stand below `.cache/bench`, which git ignores and `make clean` removes. Only the making of
one needs a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "bench"
PYTHON = "3.11"
MAKE_TIMEOUT_S = 300.0

# What every contender scores with: the versions of this project's own environment.
SHARED = ("onnxruntime==1.31.1", "msgspec==0.22.0", "numpy==2.4.6")
FRAMEWORKS = {
    "quix": ("quixstreams==3.28.1",),
    "faust": ("faust-streaming==0.15.3", "aiokafka==0.14.0"),
    "bytewax": ("bytewax==0.21.1", "confluent-kafka==2.16.1"),
    "arroyo": ("sentry-arroyo==2.48.0", "confluent-kafka==2.16.1"),
    "faststream": ("faststream[confluent]==0.7.8", "confluent-kafka==2.16.1"),
}


class EnvironmentUnavailable(RuntimeError):
    """An environment could not be made; the message says why."""


def interpreter(name: str, say: Callable[[str], None]) -> Path:
    """Return the Python of a framework's environment, made now if it is not there.

    Raises:
        EnvironmentUnavailable: it cannot be made.
    """
    folder, pins = FOLDER / name, [*FRAMEWORKS[name], *SHARED]
    if not is_made(folder, pins):
        say(f"Making the environment of {name}: {', '.join(pins)}.")
        make(name, folder, pins)
    return folder / "bin" / "python"


def is_made(folder: Path, pins: Sequence[str]) -> bool:
    """Say whether an environment of these pins stands in the folder."""
    made = folder / "made-of.txt"
    return made.exists() and made.read_text().split() == [*pins]


def make(name: str, folder: Path, pins: Sequence[str], timeout_s: float = MAKE_TIMEOUT_S) -> None:
    """Make the environment, anew where there is one; `name` is for messages.

    Raises:
        EnvironmentUnavailable: it cannot be made.
    """
    uv, python = _uv(), str(folder / "bin" / "python")
    _run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)], name, timeout_s)
    _run([uv, "pip", "install", "--quiet", "--python", python, *pins], name, timeout_s)
    (folder / "made-of.txt").write_text("\n".join(pins) + "\n")


def installed(name: str) -> list[str]:
    """Return all that an environment holds, as name==version."""
    python = str(FOLDER / name / "bin" / "python")
    return _run([_uv(), "pip", "freeze", "--quiet", "--python", python], name).split()


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise EnvironmentUnavailable("uv, which makes the environments, is not installed")
    return found


def _run(command: list[str], name: str, timeout_s: float = MAKE_TIMEOUT_S) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise EnvironmentUnavailable(
            f"the environment of {name} was not made within {timeout_s:g} s"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise EnvironmentUnavailable(
            f"the environment of {name} cannot be made; uv says: {said[-1]}"
        )
    return done.stdout
