"""The rules about detection: is the flag rate what was promised, are events as in training, and
is the model the right one?

**The flag rate's band.** The number flagged among m normal events is beta-binomial
(`trainer/bands.py`), which PromQL cannot compute. In its place stand two steps, each of which
errs to the side of silence:

1. The threshold's own uncertainty. The model's rate on normal events is Beta(k, n + 1 - k) with
   mean p and standard deviation s, which the worker exports. Its ends are taken to be
   (sqrt(p) +- z s / (2 sqrt(p)))^2, z standard deviations on the scale of the square root, on
   which a count's distribution is nearly normal (Bartlett, Supplement to the Journal of the Royal
   Statistical Society 3, 1936).
2. The events' own chance. At the rate of such an end, mu are expected among m. A count of a or
   more (or, below mu, of a or fewer) has at most the chance exp(-(a ln(a / mu) - a + mu)):
   Chernoff's bound, which holds for every m. The exponent is the surprise, in nats.

So a quiet topic never pages: with few events no count is surprising enough, and its chance is not
estimated but bounded. `tests/deploy/test_flag_band.py` computes the false alarms exactly.
"""

from __future__ import annotations

from deploy.alerts.parameters import Parameters
from deploy.alerts.rule import Recorded, Rule, duration

FLAGGED, SCORED = "odradek:flagged:increase", "odradek:scored:increase"
RATE_LOW, RATE_HIGH = "odradek:expected_flag_rate:low", "odradek:expected_flag_rate:high"
MODELS = "odradek:models:count"


def recorded(p: Parameters) -> tuple[Recorded, ...]:
    """Return what the rules on the flag rate, and its panels, read."""
    window = duration(p.flag_window_s)

    def increase(outcomes: str) -> str:
        chosen = f'{{job="{p.job}", outcome=~"{outcomes}"}}'
        return f"sum(increase(odradek_records_total{chosen}[{window}]))"

    ours = f'{{job="{p.job}"}}'
    mean, spread = f"odradek_expected_flag_rate{ours}", f"odradek_expected_flag_rate_stddev{ours}"
    sigmas = f"{p.flag_calibration_sigmas / 2:.12g}"
    return (
        Recorded(FLAGGED, increase("anomalous")),
        Recorded(SCORED, increase("normal|anomalous")),
        Recorded(
            RATE_LOW,
            f"min(clamp_min(sqrt({mean}) - {sigmas} * {spread} / sqrt({mean}), 0) ^ 2)",
        ),
        Recorded(RATE_HIGH, f"max((sqrt({mean}) + {sigmas} * {spread} / sqrt({mean})) ^ 2)"),
        # Events of two models in one window have no common target.
        Recorded(
            MODELS,
            f"count(count by (digest) (max_over_time(odradek_model_info{ours}[{window}])))",
        ),
    )


def flag_rate_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about the flag rate, one for each direction."""
    ours = f'{{job="{p.job}"}}'
    flagged, scored, models = (f"{name}{ours}" for name in (FLAGGED, SCORED, MODELS))
    target = f"max(odradek_target_flag_rate{ours})"

    def surprise(end: str, sign: str, factor: float) -> str:
        expected = f"({scored} * {end}{ours})"
        return (
            f"sum(\n  ({flagged} * ln(clamp_min({flagged}, 1e-9) / clamp_min({expected}, 1e-9))"
            f" - {flagged} + {expected})\n"
            f"  * ({flagged} {sign} bool {expected}) * ({models} == bool 1)\n)\n"
            f"* (sum({flagged}) {sign} bool {factor:.12g} * sum({scored}) * {target})"
        )

    window = duration(p.flag_window_s)
    told = f'{{{{ printf "%.0f" $value }}}} nats of surprise in {window}'
    return (
        Rule(
            "OdradekFlagRateHigh",
            "odradek-detection",
            "page",
            surprise(RATE_HIGH, ">", p.flag_factor),
            p.flag_surprise_nats,
            p.flag_for_s,
            f"More events are flagged than {p.flag_factor:g} times the target, and than chance "
            f"explains ({told})",
            "Many anomalies, or events that are no longer what the model was trained on.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekFlagRateLow",
            "odradek-detection",
            "ticket",
            surprise(RATE_LOW, "<", 1 / p.flag_factor),
            p.flag_surprise_nats,
            p.flag_for_s,
            f"Fewer events are flagged than 1/{p.flag_factor:g} of the target, and than chance "
            f"explains ({told})",
            "The model is blinder than promised: anomalies may pass.",
            keep_s=p.keep_firing_s,
        ),
    )


def drift_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about drift."""
    ours = f'{{job="{p.job}"}}'
    # Of a small calibration, from which the reference is made too, even honest events differ.
    large_enough = (
        f"scalar(min(odradek_calibration_events{ours}) >= bool {p.drift_calibration_min})"
    )
    return (
        Rule(
            "OdradekFeatureDrift",
            "odradek-detection",
            "ticket",
            f"max by (feature) (odradek_feature_drift_psi{ours})\n* {large_enough}",
            p.drift_psi,
            p.drift_for_s,
            "Feature {{ $labels.feature }} is not distributed as in training (PSI "
            '{{ printf "%.2f" $value }})',
            "A source, a unit or the world has changed; flags may mean less than they did.",
            keep_s=p.keep_firing_s,
        ),
        Rule(
            "OdradekScoreDrift",
            "odradek-detection",
            "ticket",
            f"max(odradek_score_drift_psi{ours})\n* {large_enough}",
            p.drift_psi,
            p.drift_for_s,
            'Scores are not distributed as in calibration (PSI {{ printf "%.2f" $value }})',
            "P-values of normal events are uniform, and these are not.",
            keep_s=p.keep_firing_s,
        ),
    )


def model_rules(p: Parameters) -> tuple[Rule, ...]:
    """Return the rules about the model and where it runs."""
    ours = f'{{job="{p.job}"}}'
    return (
        Rule(
            "OdradekModelRefused",
            "odradek-model",
            "ticket",
            f"max by (instance) (odradek_model_file_refused{ours})",
            0,
            p.refused_for_s,
            "Worker {{ $labels.instance }} refused the new model file and scores with the old one",
            "Its log line with 'was refused' says why.",
        ),
        Rule(
            "OdradekModelOld",
            "odradek-model",
            "ticket",
            f"time() - min(odradek_model_created_timestamp_seconds{ours})",
            p.model_age_max_s,
            p.model_age_for_s,
            "The model was made {{ $value | humanizeDuration }} ago",
            f"The limit is {duration(p.model_age_max_s)}: what is normal may have moved on.",
        ),
        Rule(
            "OdradekProviderFallback",
            "odradek-model",
            "ticket",
            f"max by (instance) (odradek_provider_fallback{ours})",
            0,
            p.fallback_for_s,
            "Worker {{ $labels.instance }} scores on the CPU although a GPU is present",
            "Nothing is lost, but it may be too slow: watch the lag. A GPU that failed in mid-run "
            "is not tried again before a restart.",
        ),
    )
