"""The environments of the frameworks: one for each, made by uv at its first use.

They stand below `.cache/bench`, which git ignores and `make clean` removes. Only the making of
one needs a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
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
    folder = FOLDER / name
    pins = [*FRAMEWORKS[name], *SHARED]
    made = folder / "made-of.txt"
    if not made.exists() or made.read_text().split() != pins:
        say(f"Making the environment of {name}: {', '.join(pins)}.")
        uv = _uv()
        _run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(folder)], name)
        python = str(folder / "bin" / "python")
        _run([uv, "pip", "install", "--quiet", "--python", python, *pins], name)
        made.write_text("\n".join(pins) + "\n")
    return folder / "bin" / "python"


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


def _run(command: list[str], name: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EnvironmentUnavailable(
            f"the environment of {name} was not made within {MAKE_TIMEOUT_S:g} s"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise EnvironmentUnavailable(
            f"the environment of {name} cannot be made; uv says: {said[-1]}"
        )
    return done.stdout
