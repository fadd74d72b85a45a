"""The page that lists every metric, written from the code: `python -m tests.metrics_page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.readme import ROOT
from worker.declared import SECTIONS
from worker.metric import Label, Metric

PAGE = ROOT / "docs" / "metrics.md"

_HEAD = """\
# Metrics

What a worker shows on `/metrics`, port 9108 unless `ODRADEK_HTTP_PORT` says otherwise.
This page is written from `worker/declared.py` by `python -m tests.metrics_page`.

Labels come from closed sets, or from sets that something bounds.
The series of closed sets are there from the start, at 0, so that a first error is an increase.
A `redrive` has a few outcomes more in `odradek_records_total`: what it left, and what it sent.

What is no metric of its own, because it can be told from those that are:

| wanted | expression |
| --- | --- |
"""
_RECORDS = "odradek_records_total"
DERIVED = {
    "observed flag rate": (
        f'sum(rate({_RECORDS}{{outcome="anomalous"}}[5m])) '
        f'/ sum(rate({_RECORDS}{{outcome=~"normal|anomalous"}}[5m]))'
    ),
    "expected false alarms of an hour": "increase(odradek_expected_false_alarms_total[1h])",
    "age of the model": "time() - odradek_model_created_timestamp_seconds",
    "seconds since the last turn": "time() - odradek_last_turn_timestamp_seconds",
    "seconds since the last event's own time": "time() - odradek_last_event_timestamp_seconds",
    "whether the breaker is open": 'odradek_held{hold="rejects"}',
    "share of events that miss a feature": (
        "rate(odradek_sampled_missing_values_total[5m]) "
        "/ on (instance) group_left () rate(odradek_sampled_events_total[5m])"
    ),
    "restarts": "changes(process_start_time_seconds[15m])",
}
_FOOT = """\
## What it costs

`python -m bench.metrics` decodes, scores and judges the same turn with and without.
On two cores that other programs kept busy, in three runs, a full turn of 4,096 events of 57
features took 0.06 to 0.09 us an event more with all counters and histograms, and 0.03 to 0.08 on
top of that with the sample for drift. A worker takes 4.7 us an event in all (`make bench`), so that
the counts are 1.2 to 1.9 % of it and the sample 0.7 to 1.7 %.
A turn of one event takes 26 us of metrics in a loop, 35 to 60 us among others; it takes the whole
worker 960 us.

## The process

From the Prometheus client library: `process_cpu_seconds_total`, `process_start_time_seconds`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`,
`process_max_fds`.
"""


def page() -> str:
    """The whole page."""
    escaped = {wanted: asked.replace("|", "\\|") for wanted, asked in DERIVED.items()}
    parts = [_HEAD + "".join(f"| {wanted} | `{asked}` |\n" for wanted, asked in escaped.items())]
    for section in SECTIONS:
        parts.append("\n".join([f"## {section.title}", "", *_table(section.metrics)]) + "\n")
    return "\n".join([*parts, _FOOT])


def _table(metrics: Sequence[Metric]) -> Iterator[str]:
    yield "| metric | kind | unit | labels | |"
    yield "| --- | --- | --- | --- | --- |"
    for metric in metrics:
        labels = "; ".join(map(_label, metric.labels))
        sentence = metric.sentence
        if metric.bounds:
            sentence += f" Buckets to {', '.join(f'{bound:g}' for bound in metric.bounds)}."
        cells = (f"`{metric.scraped_name}`", metric.kind, metric.unit, labels, sentence)
        yield f"| {' | '.join(cells)} |"


def _label(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values)
    return f"`{label.name}`: {values or label.bound}"


if __name__ == "__main__":
    PAGE.write_text(page())
