"""The environment of PyOD: made by uv at its first use, with everything pinned that has a say.

It stands below `.cache/bench`, as those of the frameworks (`bench.contenders.environments`), which
share a set of packages that PyOD has no use for. torch is the project's own version: uv takes it
from its cache. Only the making needs a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.contenders.environments import FOLDER, PYTHON, EnvironmentUnavailable

PINS = (
    "pyod==3.6.7",
    "torch==2.15.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "numba==0.68.1",
    "numpy==2.4.6",
    "tqdm==4.70.1",  # AutoEncoder imports it, and PyOD does not declare it.
)
MAKE_TIMEOUT_S = 1800.0  # torch alone is 3 GB where it is not in uv's cache.
_FOLDER = FOLDER / "pyod"


def is_made() -> bool:
    """Say whether the environment is there, as it should be."""
    made = _FOLDER / "made-of.txt"
    return made.exists() and made.read_text().split() == list(PINS)


def interpreter(say: Callable[[str], None]) -> Path:
    """Return the Python of the environment, made now if it is not there.

    Raises:
        EnvironmentUnavailable: it cannot be made.
    """
    python = _FOLDER / "bin" / "python"
    if is_made():
        return python
    say(f"Making the environment of PyOD: {', '.join(PINS)}. This may download 3 GB.")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise EnvironmentUnavailable("uv, which makes the environments, is not installed")
    _run([uv, "venv", "--quiet", "--clear", "--python", PYTHON, str(_FOLDER)])
    _run([uv, "pip", "install", "--quiet", "--python", str(python), *PINS])
    (_FOLDER / "made-of.txt").write_text("\n".join(PINS) + "\n")
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EnvironmentUnavailable(
            f"the environment of PyOD was not made within {MAKE_TIMEOUT_S:g} s"
        ) from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise EnvironmentUnavailable(f"the environment of PyOD cannot be made; uv says: {said[-1]}")
