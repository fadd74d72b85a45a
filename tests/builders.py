"""Small real things for tests: events, records, and a sealed model built without torch.

`a_sealed_model` is a linear stand-in for an autoencoder: it expects every feature to be 0 and
scores an event by its mean square, so that a test can say in its head what must come out. The
graph, the contract and the digest are as real as the trainer's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from schemas.calibration import Calibration, Tail
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
from worker.model import Model, ModelOptions, open_model
from worker.turn import Records


@dataclass(frozen=True)
class Recipe:
    """What the stand-in model is made of; tests change one thing at a time."""

    features: int = 3
    gain: float = 1.0
    name: str = "stand-in"
    version: str = "1"
    rate: float = 0.1
    layout: EventLayout = field(default_factory=EventLayout)
    refuse_missing: frozenset[str] = frozenset()
    calibration_seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"x{place}" for place in range(self.features))


def a_graph(recipe: Recipe) -> onnx.ModelProto:
    """score = gain * mean of present x^2, NaN for a row that misses all, or a refusing one."""
    d = recipe.features
    refusing = np.array([name in recipe.refuse_missing for name in recipe.names], np.float32)
    constants = {
        "zero": np.float32(0),
        "ones": np.ones((d, 1), np.float32),
        "refusing": refusing.reshape(d, 1),
        "gain": np.float32(recipe.gain),
        "half": np.float32(0.5),
        "nan": np.float32(np.nan),
        "low": np.float32(-1e18),
        "high": np.float32(1e18),
        "axis": np.array([1], np.int64),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Cast", ["missing"], ["missing_f"], to=TensorProto.FLOAT),
        helper.make_node("Where", ["missing", "zero", "features"], ["filled"]),
        helper.make_node("Clip", ["filled", "low", "high"], ["clipped"]),
        helper.make_node("Mul", ["clipped", "clipped"], ["squares"]),
        helper.make_node("MatMul", ["missing_f", "ones"], ["missing_count"]),
        helper.make_node("MatMul", ["missing_f", "refusing"], ["refused_count"]),
        helper.make_node("Sub", ["width", "missing_count"], ["present"]),
        helper.make_node("Max", ["present", "one"], ["divisor"]),
        helper.make_node("Mul", ["squares", "gain"], ["scaled"]),
        helper.make_node("Div", ["scaled", "divisor"], ["contributions"]),
        helper.make_node("MatMul", ["contributions", "ones"], ["sum"]),
        helper.make_node("Less", ["present", "half"], ["all_missing"]),
        helper.make_node("Greater", ["refused_count", "half"], ["refused"]),
        helper.make_node("Or", ["all_missing", "refused"], ["unscorable"]),
        helper.make_node("Where", ["unscorable", "nan", "sum"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["score"]),
        helper.make_node("Mul", ["clipped", "zero"], ["expected"]),
    ]
    constants["width"] = np.float32(d)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "stand-in",
        [helper.make_tensor_value_info(INPUT_NAME, floats, ["n", d])],
        [
            helper.make_tensor_value_info(OUTPUT_NAMES[0], floats, ["n"]),
            helper.make_tensor_value_info(OUTPUT_NAMES[1], floats, ["n", d]),
            helper.make_tensor_value_info(OUTPUT_NAMES[2], floats, ["n", d]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def a_contract(recipe: Recipe, graph: onnx.ModelProto, **changes: Any) -> Contract:
    """A contract true of the graph; `changes` replace its fields."""
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])

    def score(rows: np.ndarray) -> np.ndarray:
        return session.run(["score"], {INPUT_NAME: rows.astype(np.float32)})[0]

    rng = np.random.default_rng(recipe.calibration_seed)
    calibration = Calibration.of(score(rng.normal(size=(199, recipe.features))))
    golden = np.vstack(
        [
            rng.normal(size=(4, recipe.features)),
            np.full((1, recipe.features), 1e30),
            np.full((1, recipe.features), np.nan),
            np.zeros((1, recipe.features)),
        ]
    ).astype(np.float32)
    fields: dict[str, Any] = {
        "name": recipe.name,
        "version": recipe.version,
        "created_at": "2026-01-01T00:00:00Z",
        "layout": recipe.layout,
        "features": tuple(
            Feature(
                name=name,
                path=(name,),
                missing="refuse" if name in recipe.refuse_missing else "mask",
            )
            for name in recipe.names
        ),
        "threshold": Threshold(
            value=calibration.threshold(recipe.rate),
            target_flag_rate=recipe.rate,
            requested_flag_rate=recipe.rate,
        ),
        "calibration": calibration,
        "score_tolerance": ScoreTolerance(
            relative=1e-5, scale=float(np.median(calibration.scores))
        ),
        "golden": GoldenBatch.of(golden, score(golden)),
        "holds_training_rows": False,
        "training": {},
        **changes,
    }
    return Contract(**fields)


def an_extrapolation(recipe: Recipe, rate: float = 1e-4) -> dict[str, Any]:
    """Changes to `a_contract` that give it a tail, which halves the p-value at each step of 1."""
    calibration = a_contract(recipe, a_graph(recipe)).calibration
    level = calibration.scores[-50]
    share = 50 / (calibration.n + 1)
    steps = np.arange(20, dtype="<f4")
    tail = Tail(
        values=(level + steps).astype("<f4").tobytes(),
        p_values=(share * 0.5 ** steps.astype(np.float64)).tobytes(),
        excesses=49,
        scale="score",
        shape=0.0,
        fit_p_value=0.5,
        flag_rate_low=rate / 10,
        flag_rate_high=rate * 4,
    )
    calibration = replace(calibration, tail=tail)
    threshold = Threshold(
        value=calibration.threshold(rate),
        target_flag_rate=rate,
        requested_flag_rate=rate,
        rule="generalised_pareto",
    )
    return {"calibration": calibration, "threshold": threshold}


def seal(graph: onnx.ModelProto, contract_json: str) -> bytes:
    """Put contract and digest into the graph, as the format says."""
    sealed = onnx.ModelProto()
    sealed.CopyFrom(graph)
    for key, value in ((CONTRACT_KEY, contract_json), (DIGEST_KEY, "0" * 64)):
        sealed.metadata_props.add(key=key, value=value)
    return stamp(sealed.SerializeToString(deterministic=True))


def a_sealed_model(recipe: Recipe = Recipe(), **changes: Any) -> bytes:  # Frozen.
    """The bytes of a sealed stand-in model."""
    graph = a_graph(recipe)
    return seal(graph, a_contract(recipe, graph, **changes).to_json())


def a_model(recipe: Recipe = Recipe(), **changes: Any) -> Model:  # Frozen.
    """An opened stand-in model."""
    return open_model(a_sealed_model(recipe, **changes), ModelOptions("cpu", batch_max=64))


def an_event(
    *features: float | None, event_id: str | None = "e", timestamp: int | None = 1000, **more: Any
) -> bytes:
    """An event of the default layout as JSON."""
    event: dict[str, Any] = {"event_id": event_id, "timestamp": timestamp}
    return json.dumps({**event, "features": list(features), **more}).encode()


def records(values: Sequence[bytes | None], topic: str = "events") -> Records:
    """Records of partition 0 that hold these values, from offset 0 on, stamped 5000 ms."""
    n = len(values)
    return Records(topic, [0] * n, list(range(n)), [5000] * n, [b"k"] * n, list(values), [None] * n)
