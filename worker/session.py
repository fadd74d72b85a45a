"""onnxruntime's sessions: one on the CPU, one on the GPU, and what this process knows of its GPU.

With `worker.buckets` this is the only file that meets onnxruntime.

What onnxruntime would do unasked is switched off: a session that cannot have CUDA becomes a CPU
session without an error, and one that fails in a run is made anew on the CPU with a `print`. Its
list of "available" providers names CUDA on machines without a GPU, so that only a session that
was made says what it has.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

import onnxruntime as ort

from schemas.calibration import Floats
from schemas.contract import INPUT_NAME, OUTPUT_NAMES, ModelRefused

log = logging.getLogger(__name__)

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


Node = tuple[str, str, list[int | str]]
"""An input or output: its name, its type, and its shape, where a name stands for any number."""


class NoGpu(Exception):
    """This machine has no NVIDIA device."""

    def __init__(self) -> None:
        super().__init__("no NVIDIA device was found")


class CudaFailed(Exception):
    """There is a GPU, and it does not do what it should; the text says what was seen."""


class CudaRunFailed(CudaFailed):
    """It failed while it scored. What is wrong with it may stay for as long as the process."""


@dataclass(frozen=True)
class CudaOptions:
    """How a session on the GPU is opened.

    `mem_limit_mb` bounds the memory of one session: weights and intermediate values, but neither
    the batch's own buffers (`worker.buckets`) nor CUDA's context and libraries. 2,000 MB hold 30
    million parameters (120 MB) and a dozen layers of 4,096 values for 4,096 rows (67 MB each)
    twice over. `tf32` keeps ten bits of each product, not 23. `graph` records each bucket's
    kernels once and launches them as one.
    """

    mem_limit_mb: int = 2_000
    tf32: bool = False
    graph: bool = False

    def to_provider(self) -> dict[str, str]:
        """Return onnxruntime's own options; TF32 is on in them unless switched off."""
        return {
            "use_tf32": str(int(self.tf32)),
            "enable_cuda_graph": str(int(self.graph)),
            "gpu_mem_limit": str(self.mem_limit_mb * 1_000_000),
            # Doubling at each growth, the default, would claim up to twice what is needed.
            "arena_extend_strategy": "kSameAsRequested",
        }


class CpuSession:
    """A model on the CPU: batches of any size, as they are."""

    def __init__(self, sealed: bytes, threads: int) -> None:
        """Open a sealed model.

        Raises:
            ModelRefused: onnxruntime cannot open it.
        """
        try:
            self._session = ort.InferenceSession(
                sealed, _settings(threads), providers=[_CPU], enable_fallback=0
            )
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors have no common base.
            raise ModelRefused(f"onnxruntime cannot open it: {error}") from None

    @property
    def metadata(self) -> dict[str, str]:
        metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return metadata

    def inputs(self) -> list[Node]:
        return [(node.name, node.type, node.shape) for node in self._session.get_inputs()]

    def outputs(self) -> list[Node]:
        return [(node.name, node.type, node.shape) for node in self._session.get_outputs()]

    def run(self, features: Floats) -> Sequence[Floats]:
        """Return the outputs for float32 rows [n, d]; n is at least 1."""
        outputs: Sequence[Floats] = self._session.run(OUTPUT_NAMES, {INPUT_NAME: features})
        return outputs


def cuda_session(sealed: bytes, options: CudaOptions) -> ort.InferenceSession:
    """Open a sealed model on the GPU.

    Nodes for which onnxruntime has no CUDA kernel are placed on the CPU, which the log tells. With
    `graph` there may be none of these.

    Raises:
        NoGpu: this machine has none.
        CudaFailed: onnxruntime cannot have CUDA, or cannot open the model on it.
    """
    if not any(device.exists() for device in _GPU_DEVICES):
        raise NoGpu
    ort.preload_dlls()  # CUDA from Python packages, where there is no system-wide one.
    settings = recording_settings()
    providers = [(_CUDA, options.to_provider()), _CPU]
    try:
        session = ort.InferenceSession(sealed, settings, providers=providers, enable_fallback=0)
    except Exception as error:  # noqa: BLE001  # As above.
        raise CudaFailed(f"onnxruntime could not open the model on CUDA: {error}") from None
    if _CUDA not in session.get_providers():
        raise CudaFailed("onnxruntime could not load CUDA")
    nodes = nodes_by_provider(session)
    if on_cpu := nodes[_CPU]:
        log.info(
            "%d of the model's %d nodes have no CUDA kernel and run on the CPU, with copies there "
            "and back: %s.",
            on_cpu.total(),
            sum(counts.total() for counts in nodes.values()),
            ", ".join(sorted(on_cpu)),
        )
    return session


def recording_settings() -> ort.SessionOptions:
    """Return the settings of a session that notes which provider runs which node."""
    settings = _settings(threads=1)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """Count the nodes of each operator that each provider runs."""
    nodes: dict[str, Counter[str]] = {_CPU: Counter()}
    for part in session.get_provider_graph_assignment_info():
        counts = nodes.setdefault(part.ep_name, Counter())
        counts.update(node.op_type for node in part.get_nodes())
    return nodes


def _settings(threads: int) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    # One thread of our own: the default spins all cores between the batches of a quiet topic
    # (0.75 cores against 0.12), and sizes its pool by the host, not by the container.
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if threads > 1:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


class Gpu:
    """The GPU of this process, until it is given up.

    An error of CUDA's may stay for as long as the process lives, whatever is opened after it. So
    the first failure while it scores, be it a golden batch, is the last: every later model of the
    process goes to the CPU. `open_session` is `cuda_session`, or a test's own that fails when it
    should.
    """

    def __init__(
        self, open_session: Callable[[bytes, CudaOptions], ort.InferenceSession] = cuda_session
    ) -> None:
        self._open_session = open_session
        self.why_given_up: str | None = None
        self._in_use: WeakSet[object] = WeakSet()
        self._kept: list[object] = []

    def open(self, sealed: bytes, options: CudaOptions) -> ort.InferenceSession:
        """Open a sealed model.

        Raises:
            NoGpu, CudaFailed: as `cuda_session`; or the GPU was given up before.
        """
        if self.why_given_up is not None:
            raise CudaFailed(f"CUDA has failed before in this process ({self.why_given_up})")
        return self._open_session(sealed, options)

    def uses(self, session: object) -> None:
        """Know of something that holds memory of the GPU."""
        self._in_use.add(session)

    def give_up(self, why: str) -> None:
        """Use the GPU no more.

        What is in use is kept for as long as this object: to take a session apart in a CUDA context
        that is broken may end the process. Its GPU memory is free again after a restart.
        """
        self.why_given_up = self.why_given_up or why
        self._kept = [*self._in_use]
