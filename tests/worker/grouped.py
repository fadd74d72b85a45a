"""Stand-in models that judge by groups, for the worker's tests.

The scores of group `g` are calibrated `SCALE[g]` times as high as those of all, so that one event
is anomalous in one group and normal in the next.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.calibration import Calibration
from schemas.contract import GROUPED_FORMAT_VERSION, Contract
from schemas.event import Path
from schemas.groups import Group, Groups, GroupSource
from tests.builders import Recipe, a_contract, a_graph, seal
from worker.model import Model, ModelOptions, open_model

SCALE = {"quiet": 0.01, "söder": 1.0, "17": 100.0}


def groups_of(contract: Contract, source: GroupSource, path: Path = (), name: str = "") -> Groups:
    calibrations = {
        text: Calibration.of(contract.calibration.scores * scale) for text, scale in SCALE.items()
    }
    rate = contract.threshold.target_flag_rate
    return Groups(
        name=name or "site",
        source=source,
        path=path,
        pooled="others",
        members=tuple(
            Group(text=text, threshold=calibration.threshold(rate), calibration=calibration)
            for text, calibration in calibrations.items()
        ),
    )


def with_groups(
    contract: Contract, source: GroupSource, path: Path = (), name: str = ""
) -> Contract:
    return replace(
        contract,
        format_version=GROUPED_FORMAT_VERSION,
        groups=groups_of(contract, source, path, name),
    )


def a_sealed_grouped_model(
    source: GroupSource = "event",
    path: Path = ("site",),
    name: str = "",
    members: int = len(SCALE),
    **changes: Any,
) -> bytes:
    recipe = Recipe()
    graph = a_graph(recipe)
    contract = a_contract(recipe, graph, **changes)
    groups = groups_of(contract, source, path, name)
    groups = replace(groups, members=groups.members[:members])
    contract = replace(contract, format_version=GROUPED_FORMAT_VERSION, groups=groups)
    return seal(graph, contract.to_json())


def a_grouped_model(
    source: GroupSource = "event", path: Path = ("site",), name: str = "", **changes: Any
) -> Model:
    sealed = a_sealed_grouped_model(source, path, name, **changes)
    return open_model(sealed, ModelOptions("cpu", batch_max=64))
