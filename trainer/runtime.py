"""onnxruntime as the trainer uses it: to calibrate with what will serve, to verify, to evaluate.

On the CPU, one thread: the figures in the contract are those of the plainest machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from schemas.calibration import Floats
from schemas.contract import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAMES,
    Contract,
    ModelRefused,
)
from schemas.digest import FILE_BYTES_MAX, verified_digest

# Large enough to be quick, small enough to keep a batch of a thousand features in the cache.
BATCH_ROWS = 1024
# With all that the graph gives for them, 90 MiB of 57 features.
_HELD_ROWS = 2**17
_ERROR_ONLY = 3


class Outputs(NamedTuple):
    """What the graph gives for n rows of d features: [n], [n, d], [n, d]."""

    score: Floats
    contributions: Floats
    expected: Floats


@dataclass(frozen=True)
class SealedModel:
    """A sealed file that has passed every check of the format."""

    contract: Contract
    digest: str
    file_bytes: int
    session: ort.InferenceSession


def open_session(model: bytes) -> ort.InferenceSession:
    """Return a session on these bytes of an ONNX model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_ONLY
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, features: Floats, batch_rows: int = BATCH_ROWS) -> Outputs:
    """Score rows [n, d], n >= 1, in batches."""
    batches = [
        session.run(OUTPUT_NAMES, {INPUT_NAME: features[start : start + batch_rows]})
        for start in range(0, len(features), batch_rows)
    ]
    return Outputs(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def score_rows(
    session: ort.InferenceSession, features: Floats, numbers: npt.NDArray[np.int64]
) -> Floats:
    """Return the scores [m] of the rows of these numbers, which may be too many to hold at once."""
    if len(numbers) <= _HELD_ROWS:
        return run(session, features[numbers]).score
    scores = np.empty(len(numbers), np.float32)
    order = np.argsort(numbers)  # From one end of the file to the other.
    for start in range(0, len(order), _HELD_ROWS):
        some = order[start : start + _HELD_ROWS]
        scores[some] = run(session, features[numbers[some]]).score
    return scores


def open_sealed(path: Path) -> SealedModel:
    """Open a sealed file as a stranger would: from its bytes, trusting none of them.

    Raises:
        ModelRefused: it is no sealed model that this machine may use; the text says why.
    """
    try:
        # Before it is read: whoever names a disk image should not wait for all of it.
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise ModelRefused(f"it has {size:,} bytes; at most {FILE_BYTES_MAX:,} are read")
        sealed = path.read_bytes()
    except OSError as error:
        raise ModelRefused(f"it cannot be read: {error.strerror}") from None
    digest = verified_digest(sealed)
    try:
        session = open_session(sealed)
    except Exception as error:  # noqa: BLE001  # Its exceptions share no other base.
        raise ModelRefused(f"onnxruntime cannot load it: {str(error)[:300]}") from None
    held = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    if held is None:
        raise ModelRefused("it carries no contract")
    contract = Contract.from_json(held)
    _check_interface(session, len(contract.features))
    _check_golden(session, contract)
    return SealedModel(contract, digest, len(sealed), session)


def _check_interface(session: ort.InferenceSession, width: int) -> None:
    wanted = [
        (INPUT_NAME, 2, width),
        ("score", 1, None),
        *((n, 2, width) for n in OUTPUT_NAMES[1:]),
    ]
    seen = [
        (part.name, len(part.shape), part.shape[1] if len(part.shape) == 2 else None)
        for part in (*session.get_inputs(), *session.get_outputs())
    ]
    kinds = {part.type for part in (*session.get_inputs(), *session.get_outputs())}
    if seen != wanted or kinds != {"tensor(float)"}:
        raise ModelRefused(
            f"its inputs and outputs are {seen} of {sorted(kinds)}; wanted {wanted}, float32"
        )


def _check_golden(session: ort.InferenceSession, contract: Contract) -> None:
    wanted = contract.golden.expected_scores()
    seen = run(session, contract.golden.rows(len(contract.features))).score
    differing = int(contract.score_tolerance.differ(wanted, seen).sum())
    if differing:
        raise ModelRefused(
            f"this machine scores {differing} of its {len(wanted)} golden rows differently"
        )
