"""The dashboard that is opened first: is all well, and if not, what is it?"""

from __future__ import annotations

from deploy.alerts.parameters import Parameters
from deploy.grafana.detection import FLAG_RATE, MODEL_AGE
from deploy.grafana.panels import OURS, Board, Limit, Panel, Query
from deploy.grafana.queries import or_none, per_second, quantile

_P = Parameters()

OUTCOMES = Panel(
    "Records by outcome",
    "How many records come, and what becomes of them?",
    "recps",
    (Query(per_second("odradek_records_total", "outcome"), "{{outcome}}"),),
)
LATENCY = Panel(
    "Latency of events",
    "How long does an event wait for its score, from its own time to the acknowledgement?",
    "s",
    tuple(
        Query(
            quantile(share, "odradek_event_latency_seconds"),
            f"{share:.1%}".replace(".0", ""),
        )
        for share in (0.5, 0.99, 0.999)
    ),
)
# While a partition goes from one worker to another, both may show it for a scrape.
_LAGS = f"max by (partition) (odradek_lag_records{OURS})"
LAG = Panel("Lag", "Do the workers keep up?", "short", (Query(_LAGS, "partition {{partition}}"),))


def _number(
    title: str, question: str, unit: str, expression: str, limit: Limit | None = None
) -> Panel:
    return Panel(title, question, unit, (Query(expression),), "number", 4, limit)


_FIRING = 'ALERTS{job="$job", alertstate="firing"}'
_FIRING_SINCE = f"ALERTS_FOR_STATE{OURS} and ignoring (alertstate) {_FIRING}"
_RED_FROM_1 = Limit(1, "green", "red")
WHICH_ALERTS = Panel(
    "Which alerts fire",
    f"What does a person have to look at? {_P.runbook} has a chapter of each alert's name.",
    "short",
    (Query(or_none(f"max by (alertname, severity) ({_FIRING})", "alertname"), "{{alertname}}"),),
    "timeline",
    limit=_RED_FROM_1,
)
SINCE_WHEN = Panel(
    "For how long they hold",
    "Since when is it so, of alerts that fire? From the first time that the rule held, which is "
    f"before it was told. {_P.runbook} has a chapter of each alert's name.",
    "s",
    (
        Query(
            or_none(f"time() - min by (alertname, severity) ({_FIRING_SINCE})", "alertname"),
            "{{alertname}} {{severity}}",
        ),
    ),
    "bars",
    limit=_RED_FROM_1,
)

OVERVIEW = Board(
    "odradek-overview",
    "Odradek: overview",
    "Is all well? Where not, the other two dashboards and the runbook go on from here.",
    (
        _number(
            "Workers",
            "How many answer?",
            "short",
            f"sum(up{OURS}) or vector(0)",
            Limit(_P.workers_expected, "red", "green"),
        ),
        _number(
            "Ready",
            "How many take events?",
            "short",
            f"sum(odradek_ready{OURS}) or vector(0)",
            Limit(1, "red", "green"),
        ),
        _number(
            "Alerts that fire",
            "Does anything need a person?",
            "short",
            f"count({_FIRING}) or vector(0)",
            _RED_FROM_1,
        ),
        _number("Records a second", "Does it flow?", "recps", per_second("odradek_records_total")),
        _number(
            "Lag",
            "Does it keep up?",
            "short",
            f"sum({_LAGS})",
            Limit(_P.lag_records_min, "green", "orange"),
        ),
        MODEL_AGE,
        WHICH_ALERTS,
        SINCE_WHEN,
        OUTCOMES,
        FLAG_RATE,
        LATENCY,
        LAG,
    ),
)
