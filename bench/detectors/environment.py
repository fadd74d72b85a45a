"""The environment of PyOD: made by uv at its first use, with everything pinned that has a say.

It stands below `.cache/bench`, as those of the frameworks (`bench.contenders.environments`), which
share a set of packages that PyOD has no use for. torch is the project's own version: uv takes it
from its cache. Only the making needs a network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.contenders import environments

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
_FOLDER = environments.FOLDER / "pyod"


def is_made() -> bool:
    """Say whether the environment is there, as it should be."""
    return environments.is_made(_FOLDER, PINS)


def interpreter(say: Callable[[str], None]) -> Path:
    """Return the Python of the environment, made now if it is not there.

    Raises:
        EnvironmentUnavailable: it cannot be made.
    """
    if not is_made():
        say(f"Making the environment of PyOD: {', '.join(PINS)}. This may download 3 GB.")
        environments.make("PyOD", _FOLDER, PINS, MAKE_TIMEOUT_S)
    return _FOLDER / "bin" / "python"
