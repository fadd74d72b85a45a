"""Model files that must each be refused with their own message, built from one good file."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from schemas.contract import CONTRACT_KEY, GoldenBatch
from schemas.digest import DIGEST_KEY, stamp
from tests.builders import Recipe, a_contract, a_graph, a_sealed_model, an_extrapolation, seal

RECIPE = Recipe()


@functools.cache
def good() -> bytes:
    return a_sealed_model(RECIPE)


def with_graph(change: Callable[[onnx.ModelProto], None]) -> bytes:
    """A well-sealed file whose graph is not what its contract says."""
    graph = a_graph(RECIPE)
    contract = a_contract(RECIPE, graph)
    change(graph)
    return seal(graph, contract.to_json())


def with_contract(change: Callable[[dict], object]) -> bytes:
    """A well-sealed file with other JSON for its contract."""
    graph = a_graph(RECIPE)
    contract = json.loads(a_contract(RECIPE, graph).to_json())
    change(contract)
    return seal(graph, json.dumps(contract, sort_keys=True, separators=(",", ":")))


def with_tail(change: Callable[[dict], object]) -> bytes:
    """A well-sealed file that extrapolates, with other JSON for its contract."""
    graph = a_graph(RECIPE)
    contract = json.loads(a_contract(RECIPE, graph, **an_extrapolation(RECIPE)).to_json())
    change(contract)
    return seal(graph, json.dumps(contract, sort_keys=True, separators=(",", ":")))


def with_contract_text(text: str) -> bytes:
    return seal(a_graph(RECIPE), text)


def edited(old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert good().count(old) >= 1
    return good().replace(old, new, 1)


def _frozen_batch(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8


def _rename_output(graph: onnx.ModelProto) -> None:
    for node in graph.graph.node:
        node.output[:] = ["anomaly" if name == "score" else name for name in node.output]
    graph.graph.output[0].name = "anomaly"


def _drop_output(graph: onnx.ModelProto) -> None:
    del graph.graph.output[2]


def _reorder_outputs(graph: onnx.ModelProto) -> None:
    outputs = list(graph.graph.output)
    del graph.graph.output[:]
    graph.graph.output.extend(outputs[::-1])


def _rename_input(graph: onnx.ModelProto) -> None:
    for node in graph.graph.node:
        node.input[:] = ["x" if name == "features" else name for name in node.input]
    graph.graph.input[0].name = "x"


def _second_input(graph: onnx.ModelProto) -> None:
    graph.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n"]))


def _unknown_operator(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].op_type = "IsNaNOrSo"


def _external_data(graph: onnx.ModelProto) -> None:
    gain = next(tensor for tensor in graph.graph.initializer if tensor.name == "ones")
    gain.ClearField("raw_data")
    gain.data_location = TensorProto.EXTERNAL
    gain.external_data.add(key="location", value="weights.bin")


def _no_contract() -> bytes:
    sealed = onnx.load_from_string(good())
    del sealed.metadata_props[:]
    sealed.metadata_props.add(key=DIGEST_KEY, value="0" * 64)
    return stamp(sealed.SerializeToString(deterministic=True))


def _fewer_features() -> bytes:
    """A graph of three features under the contract of two."""
    graph, other = a_graph(RECIPE), Recipe(features=2)
    return seal(graph, a_contract(other, a_graph(other)).to_json())


def _other_golden() -> bytes:
    graph = a_graph(RECIPE)
    contract = a_contract(RECIPE, graph)
    scores = contract.golden.expected_scores() * np.float32(1.001)
    golden = GoldenBatch.of(contract.golden.rows(RECIPE.features), scores)
    return seal(graph, a_contract(RECIPE, graph, golden=golden).to_json())


def _infinite_golden() -> bytes:
    graph = a_graph(RECIPE)
    contract = a_contract(RECIPE, graph)
    scores = np.full_like(contract.golden.expected_scores(), np.inf)
    golden = GoldenBatch.of(contract.golden.rows(RECIPE.features), scores)
    return seal(graph, a_contract(RECIPE, graph, golden=golden).to_json())


def _metadata_appended() -> bytes:
    """Protocol buffers let anyone append an entry that wins over an earlier one."""
    contract = with_contract(lambda c: c.update(name="another"))
    second = onnx.load_from_string(contract)
    appended = onnx.ModelProto()
    appended.metadata_props.add(key=CONTRACT_KEY, value=second.metadata_props[0].value)
    return good() + appended.SerializeToString()


def _digest_appended() -> bytes:
    appended = onnx.ModelProto()
    appended.metadata_props.add(key=DIGEST_KEY, value="a" * 64)
    return good() + appended.SerializeToString()


def _threshold(value: object) -> Callable[[dict], object]:
    return lambda contract: contract["threshold"].update(value=value)


# Name -> (a function of no arguments that builds the bytes, a part of the message).
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "it carries no digest"),
    "text": (lambda: b"this is not a model\n" * 50, "it carries no digest"),
    "another ONNX file": (lambda: a_graph(RECIPE).SerializeToString(), "it carries no digest"),
    "truncated": (lambda: good()[:-100], "it carries no digest"),
    "without its last byte": (lambda: good()[:-1], "it carries no digest"),
    "cut in the middle": (lambda: good()[: len(good()) // 2], "it carries no digest"),
    "twice itself": (lambda: good() + good(), "it carries 2 digests"),
    "a byte appended": (lambda: good() + b"\x00", "do not match its digest"),
    "an edited weight": (
        lambda: edited(np.float32(-1e18).tobytes(), np.float32(-2e18).tobytes()),
        "do not match its digest",
    ),
    "an edited contract": (
        lambda: edited(b'"target_flag_rate":0.1', b'"target_flag_rate":0.2'),
        "do not match its digest",
    ),
    "an edited digest": (
        lambda: good()[:-1] + (b"0" if good()[-1:] != b"0" else b"1"),
        "do not match its digest",
    ),
    "a contract appended": (_metadata_appended, "do not match its digest"),
    "a digest appended": (_digest_appended, "it carries 2 digests"),
    "another format": (
        lambda: with_contract(lambda c: c.update(format="other")),
        "its format is 'other'",
    ),
    "a later format version": (
        lambda: with_contract(lambda c: c.update(format_version=3)),
        "its format version is 3; this program reads versions 1 and 2",
    ),
    "no contract": (_no_contract, "it carries no 'odradek.contract'"),
    "a contract that is no JSON": (
        lambda: with_contract_text("hello"),
        "its contract cannot be read: JSON is malformed",
    ),
    "an empty contract": (lambda: with_contract_text(""), "its contract cannot be read"),
    "a contract without features": (
        lambda: with_contract(lambda c: c.pop("features")),
        "missing required field `features`",
    ),
    "an unknown kind of feature": (
        lambda: with_contract(lambda c: c["features"][0].update(kind="colour")),
        "Invalid enum value 'colour'",
    ),
    "a NaN threshold": (
        lambda: with_contract(_threshold(float("nan"))),
        "its contract cannot be read",
    ),
    "no threshold": (lambda: with_contract(_threshold(None)), "its contract cannot be read"),
    "a threshold that its rule does not give": (
        lambda: with_contract(_threshold(1e9)),
        "the threshold is 1000000000.0; its rule gives",
    ),
    "a rate that its calibration cannot support": (
        lambda: with_contract(lambda c: c["threshold"].update(target_flag_rate=1e-6)),
        "199 calibration scores cannot support a rate of 1e-06",
    ),
    "a rule that nobody knows": (
        lambda: with_contract(lambda c: c["threshold"].update(rule="three_sigma")),
        "Invalid enum value 'three_sigma'",
    ),
    "an extrapolation that calls itself conformal": (
        lambda: with_tail(lambda c: c["threshold"].update(rule="conformal")),
        "the threshold's rule is 'conformal', and there is a tail",
    ),
    "an extrapolation whose tail is gone": (
        lambda: with_tail(lambda c: c["calibration"].pop("tail")),
        "the threshold's rule is 'generalised_pareto', and there is no tail",
    ),
    "a tail with a step too few": (
        lambda: with_tail(
            lambda c: c["calibration"]["tail"].update(values=c["calibration"]["tail"]["values"][4:])
        ),
        "the tail's lengths differ",
    ),
    "a threshold that its tail does not give": (
        lambda: with_tail(_threshold(5.0)),
        "the threshold is 5.0; its rule gives",
    ),
    "a feature twice": (
        lambda: with_contract(lambda c: c["features"][0].update(name="x1")),
        "a feature's name is empty or occurs twice",
    ),
    "another feature count": (_fewer_features, "the contract's 2 features want"),
    "a frozen batch": (lambda: with_graph(_frozen_batch), "its batch is frozen at 8 rows"),
    "an output renamed": (lambda: with_graph(_rename_output), "its outputs are 'anomaly'"),
    "an output missing": (lambda: with_graph(_drop_output), "its outputs are 'score'"),
    "outputs in another order": (
        lambda: with_graph(_reorder_outputs),
        "its outputs are 'expected'",
    ),
    "an input renamed": (lambda: with_graph(_rename_input), "its input is 'x'"),
    "a second input": (lambda: with_graph(_second_input), "its input is 'features'"),
    "an unknown operator": (lambda: with_graph(_unknown_operator), "onnxruntime cannot open it"),
    "weights in another file": (lambda: with_graph(_external_data), "onnxruntime cannot open it"),
    "a golden batch that scores differently": (
        _other_golden,
        "golden rows score differently here: row 0 scores",
    ),
    "a golden batch of infinities": (_infinite_golden, "golden rows score differently here"),
    "golden rows of another width": (
        lambda: with_contract(lambda c: c["golden"].update(scores="")),
        "the golden batch's rows and scores do not fit",
    ),
}
