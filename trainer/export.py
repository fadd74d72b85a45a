"""torch module -> ONNX bytes that say nothing of the machine that made them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from onnx import ModelProto
from torch import nn

from schemas.contract import CONTRACT_KEY, INPUT_NAME, OUTPUT_NAMES
from schemas.digest import DIGEST_KEY

# What every onnxruntime since 1.17 (2024) reads, and the exporter's own default.
OPSET = 20
# These behave otherwise in training; `eval()` removes them, and an export without it would not.
_TRAINING_OPS = frozenset({"Dropout", "BatchNormalization"})


def export(module: nn.Module, width: int) -> ModelProto:
    """Return `module`, from features [n, width] to the three outputs, as ONNX with n dynamic."""
    module.eval()
    rows = torch.export.Dim("n", min=1, max=2**20)
    # It tells every user that torchvision, which nothing here needs, is not installed.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter steps on deprecations of its own dependencies; none concerns our graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            module,
            (torch.zeros(8, width),),
            None,
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes=({0: rows},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # It is None only for the old exporter.
    model: ModelProto = program.model_proto
    strip(model)
    left = sorted({node.op_type for node in model.graph.node} & _TRAINING_OPS)
    assert not left, f"the graph still holds {left}"  # noqa: S101  # A fault of ours alone.
    return model


def strip(model: ModelProto) -> None:
    """Remove what the exporter notes of the machine: stack traces, source paths, doc strings.

    Besides giving away paths, they make the same model differ from folder to folder.
    """
    for part in _parts(model):
        part.doc_string = ""
        del part.metadata_props[:]


def with_contract(model: ModelProto, contract: str) -> bytes:
    """Return the file's bytes with the contract, and zeros where the digest belongs, last."""
    del model.metadata_props[:]
    model.metadata_props.add(key=CONTRACT_KEY, value=contract)
    model.metadata_props.add(key=DIGEST_KEY, value="0" * 64)
    return bytes(model.SerializeToString(deterministic=True))


def _parts(model: ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield everything that carries a doc string and metadata; nodes stand for all their kinds."""
    graph = model.graph
    yield from (model, graph, *model.functions)
    yield from (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output)
    for function in model.functions:
        yield from (*function.node, *function.value_info)
