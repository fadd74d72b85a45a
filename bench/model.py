"""The model of the benchmarks: a sealed 57-128-64-16-64-128-57 autoencoder with fixed weights.

`widths` makes others of its kind, wider and larger. None was ever trained, since arithmetic costs
the same whatever the weights are. All else is as in a file of the trainer's: missing values,
standardisation, clipping, score, contributions and expected values in the graph; calibration,
threshold and golden batch in the contract. The trainer's graphs have more operations: weights, and
the inverse hyperbolic sine where tails are heavy. By `python -m bench.default_model`, in us of CPU
for a row of a full turn: 29 operations 0.55, the trainer's default 39 and 0.72, with all tails
heavy 43 and 2.67.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from schemas.calibration import Calibration, Floats
from schemas.contract import (
    CONTRACT_KEY,
    INPUT_NAME,
    OUTPUT_NAMES,
    Contract,
    Feature,
    GoldenBatch,
    ScoreTolerance,
    Threshold,
)
from schemas.digest import DIGEST_KEY, stamp
from schemas.event import EventLayout

WIDTHS = (57, 128, 64, 16, 64, 128, 57)
FEATURES = WIDTHS[0]
SEED = 20_260_101
FLAG_RATE = 0.01
CALIBRATION_EVENTS = 9_999
CALIBRATION_VALUES_MAX = 2**22  # Of all its events: very wide ones are fewer.
LIMIT = 1e4  # Of a standardised value.


def normal_events(count: int, seed: int, features: int = FEATURES) -> npt.NDArray[np.float64]:
    """Return events such as the model is calibrated on, [count, features], to six decimals."""
    center, spread = _location(features)
    rng = np.random.default_rng(seed)
    return np.round(center + spread * rng.normal(size=(count, features)), 6)


def sealed_model(widths: Sequence[int] = WIDTHS) -> bytes:
    """Return the bytes of the sealed file, the same at every call on one machine.

    `widths` are those of the layers, from the features through the network back to the features.
    """
    if len(widths) < 3 or widths[0] != widths[-1]:
        raise ValueError(f"widths {tuple(widths)}; wanted at least three, the last as the first")
    model = _Graph(widths).build()
    contract = _contract(model, widths[0])
    contract.check()
    for key, value in ((CONTRACT_KEY, contract.to_json()), (DIGEST_KEY, "0" * 64)):
        model.metadata_props.add(key=key, value=value)
    return stamp(model.SerializeToString(deterministic=True))


class Answers(NamedTuple):
    """What a model says of n rows: scores [n], contributions and expected values [n, features]."""

    scores: Floats
    contributions: Floats
    expected: Floats


def answerer(model: bytes) -> Callable[[Floats], Answers]:
    """Return a function from rows to answers: onnxruntime alone, for checking others by."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda rows: Answers(*session.run(OUTPUT_NAMES, {INPUT_NAME: rows}))


def _location(features: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return each feature's mean and spread, so that standardising has something to do."""
    rng = np.random.default_rng(SEED)
    return rng.normal(size=features), rng.uniform(0.5, 2.0, size=features)


class _Graph:
    """Nodes and constants as they are written down, one line an operation."""

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = widths
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[np.generic]] = {}

    def build(self) -> onnx.ModelProto:
        features = self._widths[0]
        center, spread = (part.astype(np.float32) for part in _location(features))
        ones = np.ones((features, 1), np.float32)
        self._constant("zero", np.float32(0))
        self._do("IsNaN", [INPUT_NAME], "missing")
        self._do("Sub", [INPUT_NAME, self._constant("center", center)], "centred")
        self._do("Div", ["centred", self._constant("spread", spread)], "unclipped")
        self._do("Where", ["missing", "zero", "unclipped"], "filled")
        limits = [self._constant(n, np.float32(v)) for n, v in (("low", -LIMIT), ("high", LIMIT))]
        self._do("Clip", ["filled", *limits], "prepared")
        self._network("prepared", "reconstruction")
        self._do("Sub", ["prepared", "reconstruction"], "residual")
        self._do("Mul", ["residual", "residual"], "squared")
        self._do("Where", ["missing", "zero", self._constant("one", np.float32(1))], "present")
        self._do("Mul", ["squared", "present"], "parts")
        self._do("MatMul", ["present", self._constant("ones", ones)], "count")
        self._do("Max", ["count", "one"], "divisor")
        self._do("Div", ["parts", "divisor"], "contributions")
        self._do("MatMul", ["contributions", "ones"], "sum")
        self._do("Less", ["count", self._constant("half", np.float32(0.5))], "unscorable")
        self._do("Where", ["unscorable", self._constant("nan", np.float32(np.nan)), "sum"], "rows")
        self._do("Squeeze", ["rows", self._constant("axis", np.array([1], np.int64))], "score")
        self._do("Mul", ["reconstruction", "spread"], "scaled")
        self._do("Add", ["scaled", "center"], "expected")
        rows: list[str | int | None] = ["n", features]
        shapes = {"score": rows[:1], "contributions": rows, "expected": rows}
        graph = helper.make_graph(
            self._nodes,
            "bench",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, rows)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
                for name in OUTPUT_NAMES
            ],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in self._constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    def _network(self, value: str, result: str) -> None:
        rng = np.random.default_rng(SEED + 1)
        last = len(self._widths) - 2
        for layer, (fan_in, fan_out) in enumerate(pairwise(self._widths)):
            weight = rng.normal(scale=fan_in**-0.5, size=(fan_in, fan_out)).astype(np.float32)
            bias = rng.normal(scale=0.01, size=fan_out).astype(np.float32)
            inputs = [
                value,
                self._constant(f"weight_{layer}", weight),
                self._constant(f"bias_{layer}", bias),
            ]
            if layer == last:
                self._do("Gemm", inputs, result)
            else:
                self._do("Gemm", inputs, f"linear_{layer}")
                value = self._do("LeakyRelu", [f"linear_{layer}"], f"hidden_{layer}")

    def _constant(self, name: str, value: npt.NDArray[np.generic] | np.generic) -> str:
        self._constants[name] = np.asarray(value)
        return name

    def _do(self, operation: str, inputs: Sequence[str], output: str) -> str:
        self._nodes.append(helper.make_node(operation, list(inputs), [output]))
        return output


def _contract(model: onnx.ModelProto, features: int) -> Contract:
    answer = answerer(model.SerializeToString())
    events = min(CALIBRATION_EVENTS, CALIBRATION_VALUES_MAX // features)
    calibration = Calibration.of(
        answer(normal_events(events, SEED + 2, features).astype(np.float32)).scores
    )
    ordinary = normal_events(8, SEED + 3, features)
    holed = np.where(np.arange(features) % 3, ordinary, np.nan)
    constant = np.repeat([[0.0], [1e30], [-np.inf], [np.nan]], features, axis=1)
    golden = np.concatenate([ordinary, holed, constant]).astype(np.float32)
    return Contract(
        name="bench",
        version="1",
        created_at="2026-01-01T00:00:00Z",
        layout=EventLayout(),
        features=tuple(Feature(name=f"x{i}", path=(f"x{i}",)) for i in range(features)),
        threshold=Threshold(
            value=calibration.threshold(FLAG_RATE),
            target_flag_rate=FLAG_RATE,
            requested_flag_rate=FLAG_RATE,
        ),
        calibration=calibration,
        score_tolerance=ScoreTolerance(relative=1e-5, scale=float(np.median(calibration.scores))),
        golden=GoldenBatch.of(golden, answer(golden).scores),
        holds_training_rows=False,
        training={},
    )
