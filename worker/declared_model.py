"""The metrics of the model, of what it flags, and of drift against its reference, declared once."""

from __future__ import annotations

from worker.metric import Label, Metric

P_VALUES = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)))

FEATURES_LABELLED_MAX = 50
OTHERS = "(others)"
_FEATURE = Label(
    "feature",
    bound=f"the model's {FEATURES_LABELLED_MAX} features with the largest parts in its scores when "
    f"it was sealed, and `{OTHERS}` for all the rest",
)

# The model.
MODEL_INFO = Metric(
    "gauge",
    "odradek_model_info",
    "1 for the model that scores, and the provider it runs on.",
    "1",
    tuple(
        Label(name, bound=bound)
        for name, bound in (
            ("name", "one at a time"),
            ("version", "one at a time"),
            ("digest", "one at a time"),
            ("provider", "`cuda` or `cpu`"),
        )
    ),
)
MODEL_CREATED = Metric(
    "gauge",
    "odradek_model_created_timestamp_seconds",
    "When the current model was made, by its contract: `time()` less this is its age.",
    "epoch seconds",
)
MODEL_LOADED = Metric(
    "gauge",
    "odradek_model_loaded_timestamp_seconds",
    "When the current model was loaded.",
    "epoch seconds",
)
MODEL_LOADS = Metric(
    "counter",
    "odradek_model_loads",
    "Attempts to load the model file, by outcome; unchanged is the current model once more.",
    "attempts",
    (Label("outcome", ("accepted", "refused", "unchanged")),),
)
MODEL_FILE_REFUSED = Metric(
    "gauge",
    "odradek_model_file_refused",
    "1 while the model file is one that was refused, or is gone, and another model scores.",
    "1",
)
FALLBACK = Metric(
    "gauge",
    "odradek_provider_fallback",
    "1 when a GPU is present and scoring runs on the CPU all the same.",
    "1",
)

# What it flags.
P_VALUE = Metric(
    "histogram",
    "odradek_p_value",
    "The p-values of scored events; uniform as long as events are as in calibration.",
    "1",
    (),
    P_VALUES,
)
TARGET_RATE = Metric(
    "gauge",
    "odradek_target_flag_rate",
    "The share of normal events that the current model is calibrated to flag, at most.",
    "1",
)
EXPECTED_RATE = Metric(
    "gauge",
    "odradek_expected_flag_rate",
    "The share of normal events that the current model flags on average: k / (n + 1), with k - 1 "
    "of n calibration events above the threshold. Scores that tie with it count for none: they are "
    "not flagged.",
    "1",
)
EXPECTED_RATE_SD = Metric(
    "gauge",
    "odradek_expected_flag_rate_stddev",
    "How far, as far as its calibration can tell, the current model's own rate lies from that: "
    "with p and s for these two, the flags among m normal events have the mean m p and the "
    "variance m p (1 - p) + m (m - 1) s^2, those of the beta-binomial distribution.",
    "1",
)
CALIBRATION_EVENTS = Metric(
    "gauge",
    "odradek_calibration_events",
    "How many normal events the current model was calibrated with.",
    "events",
)
EXPECTED_FALSE_ALARMS = Metric(
    "counter",
    "odradek_expected_false_alarms",
    "How many of the scored events would have been flagged, had all been normal: each adds the "
    "expected flag rate. To be held against the anomalous of odradek_records_total.",
    "events",
)
FLAGGED = Metric(
    "counter",
    "odradek_flagged_events",
    "Flagged events, by the feature with the largest part in their score.",
    "events",
    (_FEATURE,),
)

# The sample, and what is told of it.
SAMPLED = Metric(
    "counter",
    "odradek_sampled_events",
    "Scored events that were looked at for drift and missing values: one of each turn, and every "
    "odradek_sample_stride-th after it.",
    "events",
)
SAMPLE_STRIDE = Metric(
    "gauge",
    "odradek_sample_stride",
    "One in so many events of a turn is sampled, and at least one.",
    "events",
)
MISSING = Metric(
    "counter",
    "odradek_sampled_missing_values",
    "Values that were missing in sampled events; divided by the increase of "
    "odradek_sampled_events_total, the share of events in which a feature is missing. Of the "
    "features that the model has a reference of, 1,000 at most; of all if it has none.",
    "values",
    (_FEATURE,),
)
REFERENCE_MISSING = Metric(
    "gauge",
    "odradek_reference_missing_values",
    "Missing values per event of the model's reference: what that share was in training.",
    "values per event",
    (_FEATURE,),
)
DRIFT = Metric(
    "gauge",
    "odradek_feature_drift_psi",
    "Population stability index of a feature over the drift window, against the model's reference; "
    f"of {OTHERS}, the largest, whose feature the log names. A common reading: below 0.1 none, "
    "above 0.25 a shift. Not there "
    "where the window has fewer than 200 events or the model has no reference.",
    "1",
    (_FEATURE,),
)
SCORE_DRIFT = Metric(
    "gauge",
    "odradek_score_drift_psi",
    "Population stability index of the p-values over the drift window, in ten equal bins, against "
    "those of the calibration; not there where the window has fewer than 200 events.",
    "1",
)
DRIFT_EVENTS = Metric(
    "gauge",
    "odradek_drift_window_events",
    "Sampled events in the drift window. Without any drift, a feature's index is about 9 divided "
    "by this, and 9 by the events of the reference.",
    "events",
)
DRIFT_SECONDS = Metric(
    "gauge",
    "odradek_drift_window_seconds",
    "How long the drift window is, by ODRADEK_DRIFT_WINDOW_S; on a quiet topic it reaches back "
    "until it has 1,000 sampled events.",
    "seconds",
)
DRIFT_START = Metric(
    "gauge",
    "odradek_drift_window_start_timestamp_seconds",
    "Since when the drift window's events were acknowledged.",
    "epoch seconds",
)
