"""A sealed model, opened and checked: `open_model(bytes)`, then `Model.score(matrix)`.

A file is served only after every check of `schemas.contract`: digest, format, names and shapes,
the contract against itself, and the golden batch scored here, by this machine's runtime and by
every provider and bucket that may serve. Nothing is ever half-opened.

On a GPU. The model is warmed up in each bucket before it is accepted. A failure in mid-run loses
nothing: with `provider=auto` the same batch is scored again by a standby session on the CPU, and
this process stays there until it is restarted (`worker.session.Gpu`); with `provider=cuda` the
worker ends with the turn neither written nor committed.

Memory. While a new file is tried, two models are open, so the GPU holds at most twice what
`CudaOptions.mem_limit_mb` and the buckets allow. The old one's is let go of as soon as the new one
is current. With `auto` host memory holds the standby's weights as well (125 MB for a network of 30
million parameters, seen); its intermediate values come with the first batch that falls to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

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
from worker.buckets import BoundSession
from worker.decode import Decoder
from worker.groups import GroupReader
from worker.logs import fields
from worker.session import (
    CpuSession,
    CudaFailed,
    CudaOptions,
    CudaRunFailed,
    Gpu,
    Node,
    NoGpu,
)

log = logging.getLogger(__name__)

Provider = Literal["auto", "cuda", "cpu"]
_Run = Callable[[Floats], Sequence[Floats]]
_FORBIDDEN = "and ODRADEK_PROVIDER=cuda forbids the CPU"
_ADVICE = (
    "Look at nvidia-smi, and whether the extra odradek[cuda] and a driver are installed; or set "
    "ODRADEK_PROVIDER=auto or cpu"
)


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
    cuda: CudaOptions = field(default_factory=CudaOptions)


class _Serving(NamedTuple):
    """Where a model runs, and the session that takes over where that fails."""

    run: _Run
    provider: Literal["cuda", "cpu"]
    standby: CpuSession | None
    fell_back: bool


class Model:
    """One sealed model that may serve.

    `provider` is what really runs. `fell_back` says that it is the CPU although a GPU is present
    and was not declined.
    """

    def __init__(
        self,
        contract: Contract,
        digest: str,
        serving: _Serving,
        gpu: Gpu,
        on_fallback: Callable[[Model], None],
    ) -> None:
        self.contract = contract
        self.digest = digest
        self.reference: ModelRef = contract.reference(digest)
        self.decoder = Decoder(contract)
        self.groups = GroupReader.of(contract)
        self.provider = serving.provider
        self.fell_back = serving.fell_back
        self._run, self._standby = serving.run, serving.standby
        self._gpu = gpu
        self._on_fallback = on_fallback
        self._width = len(contract.features)

    def score(self, features: Floats) -> Scored:
        """Score float32 rows [n, d], NaN where missing; n may be 0.

        Raises:
            OutsideError: CUDA failed, and the CPU is forbidden.
        """
        if not len(features):
            # The exported graph cannot run on an empty batch.
            empty = np.empty((0, self._width), np.float32)
            return Scored(np.empty(0, np.float32), empty, empty)
        try:
            return Scored(*self._run(features))
        except CudaFailed as failure:
            self._fall_back(str(failure))
        return Scored(*self._run(features))

    def _fall_back(self, why: str) -> None:
        self._gpu.give_up(why)
        if self._standby is None:
            raise OutsideError(
                f"CUDA failed while scoring ({why}), {_FORBIDDEN}; this batch is neither written "
                "nor committed and will be read again. Look at nvidia-smi and the kernel's log"
            )
        self._run, self.provider, self.fell_back = self._standby.run, "cpu", True
        log.error(
            "CUDA failed while scoring (%s). The same batch is scored on the CPU instead, so "
            "nothing is lost; this process stays there, with later models too, until it is "
            "restarted. Look at nvidia-smi and the kernel's log.",
            why,
            extra=fields(provider=self.provider, digest=self.digest),
        )
        self._on_fallback(self)


def open_model(
    sealed: bytes,
    options: ModelOptions,
    gpu: Gpu | None = None,
    on_fallback: Callable[[Model], None] = lambda _: None,
) -> Model:
    """Open a sealed model from the bytes of its file, check it, and warm it up.

    `gpu` is what this process knows of its GPU, the same for all of its models. `on_fallback` is
    called with the model when it has gone from the GPU to the CPU in mid-run.

    Raises:
        ModelRefused: it may not serve; the text says why.
        OutsideError: `provider` is `cuda`, and CUDA cannot be had.
    """
    digest = verified_digest(sealed)
    if options.pinned_digest not in (None, digest):
        raise ModelRefused(
            f"its digest is {digest}; ODRADEK_MODEL_DIGEST allows only {options.pinned_digest}"
        )
    # The CPU first: it says whether the file is good, so that what fails after it is the GPU's.
    cpu = CpuSession(sealed, options.threads)
    contract_text = cpu.metadata.get(CONTRACT_KEY)
    if contract_text is None:
        raise ModelRefused(f"it carries no {CONTRACT_KEY!r}; it was not sealed by odradek-trainer")
    contract = Contract.from_json(contract_text)
    _check_shapes(cpu, len(contract.features))
    _check_golden(cpu.run, contract)
    gpu = gpu or Gpu()
    serving = _serving(sealed, contract, cpu, options, gpu)
    if serving.provider == "cpu":
        for rows in {1, 64, options.batch_max}:
            cpu.run(np.zeros((rows, len(contract.features)), np.float32))
    return Model(contract, digest, serving, gpu, on_fallback)


def _serving(
    sealed: bytes, contract: Contract, cpu: CpuSession, options: ModelOptions, gpu: Gpu
) -> _Serving:
    """Decide where a model runs that is good on the CPU."""
    if options.provider == "cpu":
        return _Serving(cpu.run, "cpu", None, fell_back=False)
    strict = options.provider == "cuda"
    try:
        bound = _bound(sealed, contract, options.batch_max, options.cuda, gpu)
        return _Serving(bound.run, "cuda", None if strict else cpu, fell_back=False)
    except (NoGpu, CudaFailed) as failure:
        why, present = str(failure), isinstance(failure, CudaFailed)
        if strict:
            raise OutsideError(f"{why}, {_FORBIDDEN}. {_ADVICE}") from None
    except ModelRefused as refusal:
        if strict:
            raise
        why, present = f"on the GPU {refusal}", True
    if present:
        log.warning(
            "Scoring on the CPU although a GPU is present: %s.", why, extra=fields(provider="cpu")
        )
    return _Serving(cpu.run, "cpu", None, fell_back=present)


def _bound(
    sealed: bytes, contract: Contract, batch_max: int, cuda: CudaOptions, gpu: Gpu
) -> BoundSession:
    """Open a model on the GPU as it is asked for, or with less where that does not hold."""
    try:
        session = gpu.open(sealed, cuda)
        bound = BoundSession(session, len(contract.features), batch_max, graph=cuda.graph)
        gpu.uses(bound)
        # The largest first: its memory then does for all others. Each of them, because another
        # size may take other kernels. Then as it is: of a CUDA graph, that is a replay.
        for rows in reversed(bound.bucket_rows):
            _check_golden(bound.run, contract, rows)
        _check_golden(bound.run, contract)
        return bound
    except ModelRefused as refusal:
        if not cuda.tf32:
            raise
        log.warning("TF32 is too coarse for this model: %s. Opening it again without.", refusal)
        less = replace(cuda, tf32=False)
    except CudaFailed as failure:
        if not cuda.graph or gpu.why_given_up is not None:
            if isinstance(failure, CudaRunFailed):
                gpu.give_up(str(failure))
            raise
        log.warning("%s. Opening it again without CUDA graphs, in case they are why.", failure)
        less = replace(cuda, graph=False)
    # Not within the handlers, whose exceptions hold on to the session that failed.
    return _bound(sealed, contract, batch_max, less, gpu)


def _check_shapes(session: CpuSession, width: int) -> None:
    seen_inputs = [(name, kind, shape[1:]) for name, kind, shape in session.inputs()]
    if seen_inputs != [(INPUT_NAME, "tensor(float)", [width])]:
        raise ModelRefused(
            f"its input is {_describe(seen_inputs)}; the contract's {width} features want "
            f"{INPUT_NAME!r} float32 [n, {width}]"
        )
    batch_axis = session.inputs()[0][2][0]
    if isinstance(batch_axis, int):
        raise ModelRefused(f"its batch is frozen at {batch_axis} rows; wanted any number")
    seen = [(name, kind, shape[1:]) for name, kind, shape in session.outputs()]
    wanted: list[Node] = [
        (name, "tensor(float)", [] if name == OUTPUT_NAMES[0] else [width]) for name in OUTPUT_NAMES
    ]
    if seen != wanted:
        raise ModelRefused(f"its outputs are {_describe(seen)}; wanted {_describe(wanted)}")


def _describe(nodes: list[Node]) -> str:
    return (
        ", ".join(
            f"{name!r} {kind} [n{''.join(f', {n}' for n in rest)}]" for name, kind, rest in nodes
        )
        or "nothing"
    )


def _check_golden(run: _Run, contract: Contract, count: int | None = None) -> None:
    """Score the golden batch; or as much of it, or of its repeats, as makes `count` rows."""
    golden = contract.golden.rows(len(contract.features))
    count = count or len(golden)
    rows = np.resize(golden, (count, golden.shape[1]))
    try:
        seen = run(rows)[0]
    except CudaFailed:
        raise
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors have no common base.
        raise ModelRefused(f"it cannot score its golden batch here: {error}") from None
    wanted = np.resize(contract.golden.expected_scores(), count)
    wrong = np.flatnonzero(contract.score_tolerance.differ(wanted, seen))
    if len(wrong):
        row = int(wrong[0])
        raise ModelRefused(
            f"{len(wrong)} of {len(rows)} golden rows score differently here: row {row} scores "
            f"{float(seen[row]):.9g}, and {float(wanted[row]):.9g} where it was sealed"
        )
