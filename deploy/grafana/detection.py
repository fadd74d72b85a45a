"""The dashboard on detection: what is flagged, and whether the model still fits."""

from __future__ import annotations

from deploy.alerts.detection import FLAGGED, RATE_HIGH, RATE_LOW, SCORED
from deploy.alerts.parameters import Parameters
from deploy.grafana.panels import OURS, Board, Limit, Panel, Query
from deploy.grafana.queries import per_second

FLAG_RATE = Panel(
    "Flag rate against its target",
    "Are as many events flagged as was promised? Over the last hour; the band is what the "
    "calibration can tell of the model's own rate.",
    "percentunit",
    (
        Query(f"{FLAGGED}{OURS} / {SCORED}{OURS}", "flagged"),
        Query(f"max(odradek_target_flag_rate{OURS})", "target"),
        Query(f"{RATE_LOW}{OURS}", "lowest by calibration"),
        Query(f"{RATE_HIGH}{OURS}", "highest by calibration"),
    ),
)
MODEL_AGE = Panel(
    "Age of the model",
    "Since when may what is normal have moved on?",
    "s",
    (Query(f"time() - min(odradek_model_created_timestamp_seconds{OURS})"),),
    "number",
    4,
    Limit(Parameters().model_age_max_s, "green", "orange"),
)


def _last_hour(series: str) -> str:
    return f"sum(increase({series}[1h]))"


_MISSING = (
    per_second("odradek_sampled_missing_values_total", "feature")
    + f" / scalar({per_second('odradek_sampled_events_total')})"
)
_MISSING_IN_TRAINING = f"max by (feature) (odradek_reference_missing_values{OURS})"
_P_VALUES = 'sum by (le) (increase(odradek_p_value_bucket{job="$job"}[$__rate_interval]))'
DETECTION = Board(
    "odradek-detection",
    "Odradek: detection",
    "Does it flag what it should: the flag rate, the p-values, drift, and the model.",
    (
        FLAG_RATE,
        Panel(
            "Flags, and false alarms to expect",
            "How many of the flags would there be without any anomaly? Over the last hour, each "
            "event by the model that scored it.",
            "short",
            (
                Query(
                    _last_hour('odradek_records_total{job="$job", outcome="anomalous"}'), "flagged"
                ),
                Query(
                    _last_hour(f"odradek_expected_false_alarms_total{OURS}"),
                    "expected of normal events",
                ),
            ),
        ),
        Panel(
            "P-values",
            "Are scores as in calibration? Then the share below each value is that value.",
            "percentunit",
            tuple(
                Query(
                    per_second("odradek_p_value_bucket", more=f'le="{value:g}"')
                    + f" / {per_second('odradek_p_value_count')}",
                    f"at most {value:g}",
                )
                for value in (0.01, 0.05, 0.1, 0.5, 0.9)
            ),
        ),
        Panel(
            "P-values over time",
            "Where do they pile up? Low ones are anomalous; all high: the model sees nothing.",
            "short",
            (Query(_P_VALUES, "{{le}}"),),
            "heat",
        ),
        Panel(
            "Flags by feature",
            "Which feature has the largest part in the flagged events' scores? A new one at the "
            "top is a new kind of event, or a broken source.",
            "short",
            (
                Query(
                    "topk(10, sum by (feature)"
                    f" (increase(odradek_flagged_events_total{OURS}[1h])))",
                    "{{feature}}",
                ),
            ),
            "lines",
            24,
        ),
        Panel(
            "Features that drift most",
            "Which values are not as in training, and since when? PSI; above 0.25 it is a shift.",
            "short",
            (
                Query(
                    f"topk(10, max by (feature) (odradek_feature_drift_psi{OURS}))", "{{feature}}"
                ),
            ),
        ),
        Panel(
            "Drift of scores",
            "Are p-values still uniform? PSI; above 0.25 they are not.",
            "short",
            (Query(f"max by (instance) (odradek_score_drift_psi{OURS})", "{{instance}}"),),
        ),
        Panel(
            "Features that miss values most",
            "The share of sampled events without a value, less that of training: a source that "
            "fell silent shows here. (others) is the sum of its features. Where the model has no "
            "reference, the share itself.",
            "percentunit",
            (Query(f"topk(10, {_MISSING} - {_MISSING_IN_TRAINING} or {_MISSING})", "{{feature}}"),),
        ),
        Panel(
            "Files of models",
            "Which were tried, and how did it end?",
            "short",
            (Query(f"sum by (outcome) (odradek_model_loads_total{OURS})", "{{outcome}}"),),
        ),
        Panel(
            "Model refused, GPU not used",
            "Who scores with an old model, or on the CPU beside a GPU? Red, where it is so.",
            "short",
            (
                Query(
                    f"max by (instance) (odradek_model_file_refused{OURS})", "{{instance}} refused"
                ),
                Query(f"max by (instance) (odradek_provider_fallback{OURS})", "{{instance}} CPU"),
            ),
            "timeline",
            limit=Limit(1, "green", "red"),
        ),
        Panel(
            "Models that score",
            "Which one scores, on how many workers, and where?",
            "short",
            (
                Query(
                    f"count by (name, version, digest, provider) (odradek_model_info{OURS})",
                    "{{name}} {{version}} on {{provider}}",
                ),
            ),
            "bars",
            8,
        ),
        MODEL_AGE,
    ),
)
