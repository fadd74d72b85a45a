"""PromQL of the dashboards that several panels share."""

from __future__ import annotations

_RATE = "[$__rate_interval]"


def per_second(metric: str, by: str = "", more: str = "") -> str:
    """Return the rate of a counter, summed over the workers."""
    chosen = '{job="$job"' + (f", {more}" if more else "") + "}"
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{chosen}{_RATE}))"


def none(label: str) -> str:
    """Return a series of zeros that says so, where otherwise there is none."""
    return f'label_replace(vector(0), "{label}", "none", "", "")'


def quantile(share: float, histogram: str, by: str = "le") -> str:
    return f"histogram_quantile({share}, {per_second(f'{histogram}_bucket', by)})"


def mean(histogram: str) -> str:
    return f"{per_second(f'{histogram}_sum')} / {per_second(f'{histogram}_count')}"
