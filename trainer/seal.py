"""The sealed file: what its contract says, and how it comes to stand in its place.

A file appears under its name whole, verified and on disk, or not at all.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from onnx import ModelProto

from schemas.calibration import Floats
from schemas.contract import Contract
from schemas.digest import stamp
from schemas.errors import OutsideError, SettingsError
from trainer.export import with_contract
from trainer.transforms import FeatureTransform

_GOLDEN_ORDINARY = 24
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def seal(model: ModelProto, contract: Contract) -> bytes:
    """Return the file: graph, contract and digest.

    Raises:
        ModelRefused: the contract contradicts itself, or the file would be too large.
    """
    contract.check()
    return stamp(with_contract(model, contract.to_json()))


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Lend a path beside `out` to write to; it becomes `out` if the block ends well.

    If it does not, nothing is left, and what stood at `out` still does.

    Raises:
        OutsideError: the disk is full, or does not let us.
    """
    draft: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", suffix=".draft", dir=out.parent)
        os.close(handle)
        draft = Path(name)
        yield draft
        # mkstemp keeps a file to its owner; a model is read by a worker that is someone else.
        draft.chmod(0o644)
        _sync(draft)
        draft.replace(out)
        _sync(out.parent)
    except OSError as error:
        raise OutsideError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        if draft is not None:
            with suppress(FileNotFoundError):
                draft.unlink()


def check_writable(out: Path) -> None:
    """Check, before an hour of training, that its result will have a place.

    Raises:
        SettingsError: it is no name of a sealed model, or its folder is absent or closed to us.
    """
    if out.suffix != ".onnx":
        raise SettingsError(f"--out {out}: wanted a name that ends in .onnx")
    check_place(out, "--out")


def check_place(out: Path, flag: str) -> None:
    """Check that a file may be written there; `flag` is what named it.

    Raises:
        SettingsError: it is a folder, or its own is absent or closed to us.
    """
    if out.is_dir():
        raise SettingsError(f"{flag} {out} is a folder; wanted the name of a file")
    if not out.parent.is_dir():
        raise SettingsError(f"{flag} {out}: there is no folder {out.parent}; make it first")
    if not os.access(out.parent, os.W_OK):
        raise SettingsError(f"{flag} {out}: the folder {out.parent} may not be written to")


def golden_rows(fitted: Sequence[FeatureTransform]) -> Floats:
    """Return rows that show a reader whether its runtime scores as ours does.

    Drawn from a fixed seed around the features' centres, so that no row of the user's is among
    them: ordinary ones, whole and with features missing; extreme, infinite, constant and zero
    rows; rows with one extreme feature; one of constants alone and one with no feature at all,
    which must score NaN.
    """
    width = len(fitted)
    centres = np.array([feature.centre for feature in fitted])
    varying = np.array([feature.kind != "constant" for feature in fitted])
    widths = np.array([feature.width for feature in fitted]) * varying
    draws = np.random.default_rng(0).normal(size=(_GOLDEN_ORDINARY, width))
    # From near the centre, where scores are small, to where they no longer are.
    draws *= np.geomspace(0.1, 3.0, _GOLDEN_ORDINARY)[:, None]
    # Three widths from a centre may lie beyond float32.
    some = np.clip(centres + draws * widths, -_FLOAT32_MAX, _FLOAT32_MAX)
    # Codes of a category are whole; the levels below are codes of none.
    coded = np.array([feature.kind == "category" for feature in fitted])
    codes = np.abs(np.rint(some)) % (np.array([feature.high for feature in fitted]) + 1.0)
    some = np.where(coded, codes, some)
    holed = some.copy()
    # Another feature is missing in each row, then every second one from there.
    for row in range(len(holed)):
        holed[row, row % width :: 2 + row % 3] = np.nan
    levels = (0.0, 1.0, -1.0, 1e6, -1e6, 1e30, _FLOAT32_MAX, -_FLOAT32_MAX, np.inf, -np.inf, 1e-42)
    constant = np.repeat(np.array([*levels, np.nan])[:, None], width, axis=1)
    spiked = some[:8].copy()
    spikes = (_FLOAT32_MAX, -_FLOAT32_MAX, np.inf, -np.inf)
    for row in range(len(spiked)):
        spiked[row, (7 * row) % width] = spikes[row % 4]
    unvaried = np.where(varying, np.nan, centres)[None]
    return np.concatenate([some, holed, constant, spiked, unvaried]).astype(np.float32)


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
