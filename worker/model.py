"""A sealed model, opened and checked: `open_model(bytes)`, then `Model.score(matrix)`.

A file is served only after every check of `schemas.contract`: digest, format, names and shapes,
the contract against itself, and the golden batch scored here, by this machine's runtime and the
provider that will serve. Nothing is ever half-opened.

Which provider serves is what the session says after it was made. onnxruntime's own list of
"available" providers names CUDA on machines without a GPU, and a session that cannot have CUDA
falls back to the CPU without an error.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime as ort

from schemas.calibration import Floats
from schemas.contract import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAMES,
    Contract,
    ModelRefused,
)
from schemas.digest import verified_digest
from schemas.errors import OutsideError
from schemas.score import ModelRef
from worker.decode import Decoder

log = logging.getLogger(__name__)

Provider = Literal["auto", "cuda", "cpu"]
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_Providers = Sequence[str | tuple[str, dict[str, str]]]
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


class Scored(NamedTuple):
    """A model's outputs for n rows: score [n], contributions and expected [n, d]."""

    scores: Floats
    contributions: Floats
    expected: Floats


@dataclass(frozen=True)
class ModelOptions:
    """How models are opened: `threads` within one run, `batch_max` rows for the warm-up."""

    provider: Provider = "auto"
    threads: int = 1
    batch_max: int = 4096
    pinned_digest: str | None = None


class Model:
    """One sealed model that may serve.

    `provider` is `cuda` or `cpu`: what really runs. `fell_back` says that it is the CPU although
    a GPU is present and was not declined.
    """

    def __init__(
        self, contract: Contract, digest: str, session: ort.InferenceSession, *, fell_back: bool
    ) -> None:
        self.contract = contract
        self.digest = digest
        self.reference: ModelRef = contract.reference(digest)
        self.decoder = Decoder(contract)
        self.provider = "cuda" if _CUDA in session.get_providers() else "cpu"
        self.fell_back = fell_back
        self._session = session
        self._width = len(contract.features)

    def score(self, features: Floats) -> Scored:
        """Score float32 rows [n, d], NaN where missing; n may be 0."""
        if not len(features):
            # The exported graph cannot run on an empty batch.
            empty = np.empty((0, self._width), np.float32)
            return Scored(np.empty(0, np.float32), empty, empty)
        return Scored(*self._session.run(OUTPUT_NAMES, {INPUT_NAME: features}))


def open_model(sealed: bytes, options: ModelOptions) -> Model:
    """Open a sealed model from the bytes of its file, check it, and warm it up.

    Raises:
        ModelRefused: it may not serve; the text says why.
        OutsideError: `provider` is `cuda`, and CUDA cannot be had.
    """
    digest = verified_digest(sealed)
    if options.pinned_digest not in (None, digest):
        raise ModelRefused(
            f"its digest is {digest}; ODRADEK_MODEL_DIGEST allows only {options.pinned_digest}"
        )
    session, fell_back = _open_session(sealed, options)
    contract_text = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    if contract_text is None:
        raise ModelRefused(f"it carries no {CONTRACT_KEY!r}; it was not sealed by odradek-trainer")
    contract = Contract.from_json(contract_text)
    _check_shapes(session, len(contract.features))
    model = Model(contract, digest, session, fell_back=fell_back)
    _check_golden(model)
    for rows in {1, 64, options.batch_max}:
        model.score(np.zeros((rows, len(contract.features)), np.float32))
    return model


def _open_session(sealed: bytes, options: ModelOptions) -> tuple[ort.InferenceSession, bool]:
    """Return a session, and whether it fell back to the CPU."""
    if options.provider == "cpu":
        return _session(sealed, options, [_CPU]), False
    gpu = any(device.exists() for device in _GPU_DEVICES)
    if gpu:
        # TF32 is on by default there, and keeps ten bits of each product: no golden batch holds.
        session = _session(sealed, options, [(_CUDA, {"use_tf32": "0"}), _CPU])
        if _CUDA in session.get_providers():
            return session, False
    why = "onnxruntime could not load CUDA" if gpu else "no NVIDIA device was found"
    if options.provider == "cuda":
        raise OutsideError(
            f"{why}, and ODRADEK_PROVIDER=cuda forbids the CPU; nothing is scored. Install the "
            "extra odradek[cuda] and a driver, or set ODRADEK_PROVIDER=auto or cpu"
        )
    if gpu:
        log.warning("%s although a GPU is present; scoring on the CPU instead.", why)
    return _session(sealed, options, [_CPU]), gpu


def _session(sealed: bytes, options: ModelOptions, providers: _Providers) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    # One thread of our own: the default spins all cores between the batches of a quiet topic
    # (0.75 cores against 0.12), and sizes its pool by the host, not by the container.
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if options.threads > 1:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if providers != [_CPU]:
        ort.preload_dlls()  # CUDA from Python packages, where there is no system-wide one.
    try:
        return ort.InferenceSession(sealed, settings, providers=[*providers])
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors have no common base.
        raise ModelRefused(f"onnxruntime cannot open it: {error}") from None


def _check_shapes(session: ort.InferenceSession, width: int) -> None:
    seen_inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    if seen_inputs != [(INPUT_NAME, "tensor(float)", [width])]:
        raise ModelRefused(
            f"its input is {_describe(seen_inputs)}; the contract's {width} features want "
            f"{INPUT_NAME!r} float32 [n, {width}]"
        )
    batch_axis = session.get_inputs()[0].shape[0]
    if isinstance(batch_axis, int):
        raise ModelRefused(f"its batch is frozen at {batch_axis} rows; wanted any number")
    seen = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    wanted = [
        (name, "tensor(float)", [] if name == OUTPUT_NAMES[0] else [width]) for name in OUTPUT_NAMES
    ]
    if seen != wanted:
        raise ModelRefused(f"its outputs are {_describe(seen)}; wanted {_describe(wanted)}")


def _describe(nodes: list[tuple[str, str, list[int]]]) -> str:
    return (
        ", ".join(
            f"{name!r} {kind} [n{''.join(f', {n}' for n in rest)}]" for name, kind, rest in nodes
        )
        or "nothing"
    )


def _check_golden(model: Model) -> None:
    contract = model.contract
    rows = contract.golden.rows(len(contract.features))
    try:
        seen = model.score(rows).scores
    except Exception as error:  # noqa: BLE001  # As above.
        raise ModelRefused(f"it cannot score its golden batch here: {error}") from None
    wanted = contract.golden.expected_scores()
    wrong = np.flatnonzero(contract.score_tolerance.differ(wanted, seen))
    if len(wrong):
        row = int(wrong[0])
        raise ModelRefused(
            f"{len(wrong)} of {len(rows)} golden rows score differently here: row {row} scores "
            f"{float(seen[row]):.9g}, and {float(wanted[row]):.9g} where it was sealed"
        )
