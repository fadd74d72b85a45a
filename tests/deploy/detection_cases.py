"""What the alerts on detection and on the model are tried on; see `alert_cases`."""

from __future__ import annotations

from tests.deploy.alert_cases import INSTANCE, A, Case, records

REFUSED = "Worker a:9108 refused the new model file and scores with the old one"


def flags(
    normal: str, anomalous: str, *, rate: float = 0.01, stddev: float = 0.000995, **models: str
) -> dict[str, str]:
    """A target of 1 %, calibrated with 100 of 9,999 events, if no other is given."""
    told = models or {"one": "1x120"}
    return {
        **records(normal, anomalous),
        f"odradek_target_flag_rate{{{A}}}": f"{rate!r}x120",
        f"odradek_expected_flag_rate{{{A}}}": f"{rate!r}x120",
        f"odradek_expected_flag_rate_stddev{{{A}}}": f"{stddev!r}x120",
        **{f'odradek_model_info{{{A}, digest="{name}"}}': told[name] for name in told},
    }


def score_drift(index: str, events: int = 9_999) -> dict[str, str]:
    return {
        f"odradek_score_drift_psi{{{A}}}": index,
        f"odradek_calibration_events{{{A}}}": f"{events}x60",
    }


def feature_drift(events: int = 9_999, **indices: str) -> dict[str, str]:
    return {
        **{
            f'odradek_feature_drift_psi{{{A}, feature="{name}"}}': index
            for name, index in indices.items()
        },
        f"odradek_calibration_events{{{A}}}": f"{events}x60",
    }


DETECTION = (
    Case(
        "OdradekFlagRateHigh",
        "three times the target, of 6,000 events",
        flags("0+97x120", "0+3x120"),
        90,
        {},
        "More events are flagged than 2 times the target, and than chance explains "
        "(43 nats of surprise in 1h)",
    ),
    Case("OdradekFlagRateHigh", "as promised", flags("0+99x120", "0+1x120"), 90),
    Case(
        "OdradekFlagRateHigh",
        "as promised, by a worker that starts anew every ten minutes",
        flags(" ".join(["0+99x9"] * 10), " ".join(["0+1x9"] * 10)),
        90,
    ),
    Case("OdradekFlagRateHigh", "three of thirty events", flags("0x80 27x40", "0x80 3x40"), 90),
    Case("OdradekFlagRateHigh", "certain, and small", flags("0+98200x120", "0+1800x120"), 90),
    Case(
        "OdradekFlagRateHigh",
        "a model has gone, and its flags with it",
        flags("0+97x120", "0+3x120", old="1x60 stale", new="_x60 1x60"),
        90,
    ),
    Case(
        "OdradekFlagRateLow",
        "none of 6,000 events",
        flags("0+100x120", "0x120"),
        90,
        {},
        "Fewer events are flagged than 1/2 of the target, and than chance explains "
        "(41 nats of surprise in 1h)",
    ),
    Case("OdradekFlagRateLow", "none of 600 events", flags("0+10x120", "0x120"), 90),
    Case("OdradekFlagRateLow", "certain, and small", flags("0+99400x120", "0+600x120"), 90),
    Case("OdradekFlagRateLow", "no events at all", flags("7x120", "0x120"), 90),
    Case(
        "OdradekFeatureDrift",
        "one of two features",
        feature_drift(x0="0.4x60", x1="0.1x60"),
        25,
        {"feature": "x0"},
        "Feature x0 is not distributed as in training (PSI 0.40)",
    ),
    Case(
        "OdradekFeatureDrift",
        "as much as chance makes",
        feature_drift(x0="0.14x60"),
        25,
    ),
    Case("OdradekFeatureDrift", "of 99 events", feature_drift(events=99, x0="0.3x60"), 25),
    Case(
        "OdradekFeatureDrift",
        "around its limit it is one alert",
        feature_drift(x0="0.4x20 0.24x2 0.26x2 0.24x3 0.26x9"),
        27,
        {"feature": "x0"},
        "Feature x0 is not distributed as in training (PSI 0.26)",
    ),
    Case(
        "OdradekScoreDrift",
        "for long",
        score_drift("0.5x60"),
        25,
        {},
        "Scores are not distributed as in calibration (PSI 0.50)",
    ),
    Case("OdradekScoreDrift", "for five minutes", score_drift("0.1x15 0.5x5 0.1x60"), 20),
    Case("OdradekScoreDrift", "of 99 calibration events", score_drift("0.3x60", events=99), 25),
    Case("OdradekScoreDrift", "not known yet", score_drift("NaN " * 26), 25),
)

MODEL = (
    Case(
        "OdradekModelRefused",
        "and it stays there",
        {f"odradek_model_file_refused{{{A}}}": "1x20"},
        5,
        INSTANCE,
        REFUSED,
    ),
    Case("OdradekModelRefused", "replaced", {f"odradek_model_file_refused{{{A}}}": "0 1 0x20"}, 5),
    Case(
        "OdradekModelOld",
        "of 31 days",
        {f"odradek_model_created_timestamp_seconds{{{A}}}": "-2678400x60"},
        10,
        {},
        "The model was made 31d 0h 10m 0s ago",
    ),
    Case(
        "OdradekModelOld",
        "of 29 days",
        {f"odradek_model_created_timestamp_seconds{{{A}}}": "-2505600x60"},
        10,
    ),
    Case(
        "OdradekProviderFallback",
        "the GPU has failed",
        {f"odradek_provider_fallback{{{A}}}": "1x20"},
        5,
        INSTANCE,
        "Worker a:9108 scores on the CPU although a GPU is present",
    ),
    Case("OdradekProviderFallback", "no GPU", {f"odradek_provider_fallback{{{A}}}": "0x20"}, 5),
)

CASES = (*DETECTION, *MODEL)
