"""PromQL of the dashboards that several panels share."""

from __future__ import annotations

_RATE = "[$__rate_interval]"


def per_second(metric: str, by: str = "", more: str = "", over: str = "sum") -> str:
    """Return the rate of a counter, summed over the workers, or as `over` says: max, of one."""
    chosen = '{job="$job"' + (f", {more}" if more else "") + "}"
    return f"{over}{f' by ({by})' if by else ''} (rate({metric}{chosen}{_RATE}))"


def or_none(expression: str, label: str) -> str:
    """Return the expression, with a zero whose label says "none" while it has no series."""
    return f'{expression} or on () label_replace(vector(0), "{label}", "none", "", "")'


def quantile(share: float, histogram: str, by: str = "le") -> str:
    return f"histogram_quantile({share}, {per_second(f'{histogram}_bucket', by)})"


def mean(histogram: str) -> str:
    return f"{per_second(f'{histogram}_sum')} / {per_second(f'{histogram}_count')}"
