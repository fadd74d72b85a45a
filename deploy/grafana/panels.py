"""What a panel is here, and how it becomes one of Grafana's, by Grafana's own SDK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATA_SOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")
OURS = '{job="$job"}'
HEIGHT, NUMBER_HEIGHT = 8, 4

COLOURED = ("number", "bars", "timeline")
NEUTRAL = "blue"

Drawn = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel | heatmap.Panel


class Limit(NamedTuple):
    """Two colours of Grafana's: `below` the bound, and `above`, from it on."""

    at: float
    below: str
    above: str


@dataclass(frozen=True)
class Query:
    """A PromQL expression, with `$job` and `$__rate_interval` in it, and its legend."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture: the question that it answers, and the queries that answer it."""

    title: str
    question: str
    unit: str  # Grafana's name of it: s, percentunit, short, recps, cps, bytes.
    queries: tuple[Query, ...]
    kind: Literal["lines", "number", "bars", "timeline", "heat"] = "lines"
    width: int = 12
    limit: Limit | None = None  # Of a number, bars or a timeline; without one they are neutral.


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    panels: tuple[Panel, ...]


def as_json(board: Board) -> str:
    """Return the dashboard as Grafana reads it from a file."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["odradek"])
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Odradek")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["odradek"])
        )
        .with_variable(_job())
    )
    for panel in board.panels:
        built = built.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _job() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("job")
        .label("workers")
        .datasource(DATA_SOURCE)
        .query("label_values(odradek_ready, job)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _panel(panel: Panel) -> Drawn:
    kinds: dict[str, Callable[[], Drawn]] = {
        "lines": _lines,
        "number": _number,
        "bars": _bars,
        "timeline": _timeline,
        "heat": _heat,
    }
    built = (
        kinds[panel.kind]()
        .title(panel.title)
        .description(panel.question)
        .unit(panel.unit)
        .datasource(DATA_SOURCE)
        .height(NUMBER_HEIGHT if panel.kind == "number" else HEIGHT)
        .span(panel.width)
    )
    if panel.kind in COLOURED:
        built = built.thresholds(_thresholds(panel.limit))
    for target in _targets(panel):
        built = built.with_target(target)
    return built


def _thresholds(limit: Limit | None) -> dashboard.ThresholdsConfig:
    """Return all steps: without any, Grafana takes its own, green and from 80 on red."""
    steps = [models.Threshold(None, limit.below if limit else NEUTRAL)]
    if limit:
        steps.append(models.Threshold(limit.at, limit.above))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _targets(panel: Panel) -> Sequence[prometheus.Dataquery]:
    names = "ABCDEFGH"
    targets = []
    for name, query in zip(names, panel.queries, strict=False):
        target = prometheus.Dataquery().ref_id(name).expr(query.expression)
        target = target.legend_format(query.legend or panel.title)
        if panel.kind == "heat":
            target = target.format(PromQueryFormat.HEATMAP)
        targets.append(target.instant() if panel.kind == "bars" else target.range())
    return targets


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True)
    return timeseries.Panel().fill_opacity(8).line_width(1.5).legend(legend)


def _number() -> stat.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(reduced)


def _bars() -> bargauge.Panel:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"])
    return (
        bargauge.Panel()
        .reduce_options(reduced)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
    )


def _timeline() -> statetimeline.Panel:
    """A row for each series, whose colour over time is the state."""
    by_limit = dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS)
    legend = common.VizLegendOptions().show_legend(False)  # The rows have their names.
    return (
        statetimeline.Panel().color_scheme(by_limit).show_value(VisibilityMode.NEVER).legend(legend)
    )


def _heat() -> heatmap.Panel:
    return heatmap.Panel().calculate(False)
