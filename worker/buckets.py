"""A session with its buffers: batches padded to a few fixed sizes, inputs and outputs bound.

A GPU wants few shapes and fixed addresses: memory is allocated once, kernels are chosen once for
each shape, and a CUDA graph can be recorded for each. So there is a bucket for each power of two
from 16 rows to the largest batch, at most 4,096. Powers of two: less than half of any batch over
16 rows is padding, and all buckets together take twice the memory of the largest. From 16: up to
there a GPU's time is that of launching kernels. To 4,096: larger batches are run in parts.

Memory: float32 buffers for the d features and the 2 d + 1 values of the outputs of a row, so up to
4 (3 d + 1) 2 x 4,096 bytes on the GPU (6 MB for 57 features, 403 MB for 4,096), beside what
`CudaOptions.mem_limit_mb` bounds; and the features of the largest bucket in host memory.

Nothing here is about CUDA but the place of the buffers: on a CPU session all of it runs as well,
which is how it is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort

from schemas.calibration import Floats
from schemas.contract import INPUT_NAME, OUTPUT_NAMES
from worker.session import CudaFailed, CudaRunFailed

BUCKET_ROWS_MIN, BUCKET_ROWS_MAX = 16, 4096


def bucket_rows(batch_max: int) -> tuple[int, ...]:
    """Return the rows of each bucket, ascending, for batches of up to `batch_max` rows."""
    sizes = [BUCKET_ROWS_MIN]
    while sizes[-1] < min(batch_max, BUCKET_ROWS_MAX):
        sizes.append(2 * sizes[-1])
    return tuple(sizes)


class _Bucket(NamedTuple):
    features: ort.OrtValue
    binding: ort.IOBinding
    run_options: ort.RunOptions


class BoundSession:
    """A model's session and its buckets: `run` takes any number of rows."""

    def __init__(
        self, session: ort.InferenceSession, width: int, batch_max: int, *, graph: bool
    ) -> None:
        """Allocate and bind the buffers.

        Args:
            session: of the model; on CUDA if that is among its providers, else on the CPU.
            width: the model's features.
            batch_max: the rows of the largest batch to come; larger ones are run in parts.
            graph: whether the session records a CUDA graph for each bucket.

        Raises:
            CudaFailed: there is no memory for the buffers.
        """
        self.bucket_rows = bucket_rows(batch_max)
        self._session = session
        self._staging = np.empty((self.bucket_rows[-1], width), np.float32)
        try:
            self._buckets = {
                rows: _bucket(session, rows, width, graph) for rows in self.bucket_rows
            }
        except Exception as error:  # noqa: BLE001  # onnxruntime's errors have no common base.
            raise CudaFailed(_told(error)) from None

    def run(self, features: Floats) -> Sequence[Floats]:
        """Return the outputs for float32 rows [n, d], n at least 1; no later run changes them.

        Raises:
            CudaRunFailed: the runtime or the device failed.
        """
        most = self.bucket_rows[-1]
        parts = [self._run(features[at : at + most]) for at in range(0, len(features), most)]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

    def _run(self, features: Floats) -> list[Floats]:
        count = len(features)
        rows = next(rows for rows in self.bucket_rows if rows >= count)
        bucket = self._buckets[rows]
        padded = self._staging[:rows]
        padded[:count] = features
        # The first row again: padding then brings no value into the graph that is not there anyway.
        padded[count:] = features[0]
        try:
            bucket.features.update_inplace(padded)
            # A device has an order of its own. These two cost next to nothing, and then the order
            # of copies and kernels need not be taken on trust.
            bucket.binding.synchronize_inputs()
            self._session.run_with_iobinding(bucket.binding, bucket.run_options)
            bucket.binding.synchronize_outputs()
            outputs = bucket.binding.copy_outputs_to_cpu()  # New arrays, at every call.
        except Exception as error:  # noqa: BLE001  # As above.
            raise CudaRunFailed(_told(error)) from None
        return [output[:count] for output in outputs]


def _bucket(session: ort.InferenceSession, rows: int, width: int, graph: bool) -> _Bucket:
    place = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"

    def buffer(*shape: int) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, place)

    features = buffer(rows, width)
    binding = session.io_binding()
    binding.bind_ortvalue_input(INPUT_NAME, features)
    for name in OUTPUT_NAMES:
        shape = (rows,) if name == OUTPUT_NAMES[0] else (rows, width)
        binding.bind_ortvalue_output(name, buffer(*shape))
    run_options = ort.RunOptions()
    if graph:
        run_options.add_run_config_entry("gpu_graph_id", str(rows))
    return _Bucket(features, binding, run_options)


def _told(error: Exception) -> str:
    """Return a text of onnxruntime's in one line."""
    return " ".join(str(error).split())
