"""The view of `odradek-worker top`: workers' metrics as lines of text. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from worker.scrape import LATENCY, Between, Scrape

_SHOWN = 5  # Features, reasons and the like that are named at most.
_FAR = 3.0  # Standard deviations of chance that the band of flag rates spans to either side.
_HEAD = (
    *("WORKER", "STATE", "MODEL", "EVENTS/S", "FLAGGED", "TARGET", "BAND", "DEAD/S"),
    *("LAG", "P50", "P99"),
)


class Seen(NamedTuple):
    """What is known of one worker: since the last look, and over a longer time, with one model if
    that can be; or why nothing is.
    """

    name: str
    lately: Between | None = None
    long: Between | None = None
    problem: str = ""


class Line(NamedTuple):
    """A line of the view; `alarming` ones are shown in red where there are colours."""

    text: str
    alarming: bool = False
    heading: bool = False


def view(workers: Sequence[Seen], now: float) -> list[Line]:
    """Return all that is shown; `now` is epoch seconds."""
    rows = [_HEAD, *(tuple(map(plain, _row(worker, now))) for worker in workers)]
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = [
        Line(
            "  ".join(
                cell + " " * (width - columns(cell))
                for cell, width in zip(row, widths, strict=True)
            ).rstrip(),
            alarming=place > 0 and row[1] != "ready",
            heading=place == 0,
        )
        for place, row in enumerate(rows)
    ]
    answering = [worker for worker in workers if worker.lately is not None]
    lines += [
        Line(f"  {worker.name}: {worker.problem}", alarming=True)
        for worker in workers
        if worker.problem
    ]
    for title, told in (
        (
            "Where a turn's time goes, and how long at a time (read waits for records)",
            _stages(answering),
        ),
        ("Dead letters", _dead_letters(answering)),
        ("Flags by leading feature", _flags(answering)),
        ("Features that drift most (PSI; above 0.25 is a shift)", _drift(answering)),
    ):
        if told:
            lines += [Line(""), Line(title, heading=True), Line(f"  {plain(told)}")]
    return lines


def _row(worker: Seen, now: float) -> tuple[str, ...]:
    lately, long = worker.lately, worker.long
    if lately is None or long is None:
        return (worker.name, "no answer", *["-"] * (len(_HEAD) - 2))
    after = lately.after
    flagged, band = _flagged(long)
    return (
        worker.name,
        _state(lately),
        _model(lately, now),
        _rate(lately.increase("odradek_records_total"), lately.seconds),
        flagged,
        _percent(after.value("odradek_target_flag_rate")),
        band,
        _rate(lately.increase("odradek_dead_letters_total"), lately.seconds),
        _lag(after),
        _time(lately.quantile(LATENCY, 0.5)),
        _time(lately.quantile(LATENCY, 0.99)),
    )


def _state(lately: Between) -> str:
    after = lately.after
    held = [labels["hold"] for labels, on in after.series("odradek_held") if on]
    if after.value("odradek_alive") == 0:
        return "stuck"
    if held:
        return f"holds: {', '.join(held)}"
    if lately.restarted:
        return "restarted"
    return "ready" if after.value("odradek_ready") == 1 else "not ready"


def _model(lately: Between, now: float) -> str:
    after = lately.after
    told = [
        f"{labels['name']} {labels['version']} on {labels['provider']}"
        for labels, on in after.series("odradek_model_info")
        if on
    ]
    made = after.value("odradek_model_created_timestamp_seconds")
    age = "" if made is None else f", {_age(now - made)}"
    fallen = " (GPU unused)" if after.value("odradek_provider_fallback") else ""
    return told[0] + age + fallen if told else "-"


def _flagged(long: Between) -> tuple[str, str]:
    """Return the share of scored events that were flagged, and the band that chance explains."""
    anomalous = long.increase("odradek_records_total", outcome="anomalous")
    scored = anomalous + long.increase("odradek_records_total", outcome="normal")
    if scored < 1:
        return "-", "-"
    share = anomalous / scored
    told = f"{_percent(share)} of {scored:,.0f}"
    if long.increase("odradek_model_loads_total", outcome="accepted") > 1:
        return f"{told} by several models", "-"
    expected = long.after.value("odradek_expected_flag_rate")
    if not expected:
        return told, "-"
    own = long.after.value("odradek_expected_flag_rate_stddev") or 0.0
    low, high = band(expected, own, scored)
    mark = " high" if share > high else " low" if share < low else ""
    return told + mark, f"{100 * low:.3g} to {_percent(high)}"


def band(expected: float, own: float, scored: float) -> tuple[float, float]:
    """Return between which flag rates chance explains, as far as the model's own rate is known.

    The number flagged of m normal events is beta-binomial; its standard deviation is that of
    `odradek_expected_flag_rate_stddev`. The ends lie as far out on the scale of the square root, on
    which a count's distribution is nearly normal (Bartlett, Supplement to the Journal of the Royal
    Statistical Society 3, 1936), and are rates of whole events.

    Args:
        expected: p of that metric's sentence, above 0.
        own: s of that sentence; 0 where the model's rate is p for certain.
        scored: m, at least 1.
    """
    own_variance = own**2 * (scored - 1) / scored
    sd = math.sqrt(expected * (1 - expected) / scored + own_variance)
    root = math.sqrt(expected)
    far = _FAR * sd / (2 * root)
    low, high = max(0.0, root - far) ** 2, min(1.0, root + far) ** 2
    return math.floor(low * scored) / scored, math.ceil(high * scored) / scored


def _lag(after: Scrape) -> str:
    """Return the lag, and of more partitions than one also the worst."""
    lags = after.by("odradek_lag_records", "partition")
    if not lags:
        return "-"
    total, worst = math.fsum(lags.values()), max(lags, key=lags.__getitem__)
    told = f"{total:,.0f}"
    return f"{told} (partition {worst}: {lags[worst]:,.0f})" if total and len(lags) > 1 else told


def _stages(workers: Iterable[Seen]) -> str:
    spent: Counter[str] = Counter()
    entered: Counter[str] = Counter()
    for worker in workers:
        if worker.lately is not None:
            spent.update(worker.lately.increases("odradek_turn_stage_seconds_sum", "stage"))
            entered.update(worker.lately.increases("odradek_turn_stage_seconds_count", "stage"))
    total = math.fsum(spent.values())
    return ", ".join(
        f"{stage} {seconds / total:.0%} ({_time(seconds / max(entered[stage], 1))})"
        for stage, seconds in spent.most_common()
    )


def _dead_letters(workers: Iterable[Seen]) -> str:
    return _most(workers, "odradek_dead_letters_total", "reason")


def _flags(workers: Iterable[Seen]) -> str:
    return _most(workers, "odradek_flagged_events_total", "feature")


def _drift(workers: Iterable[Seen]) -> str:
    worst: dict[str, float] = {}
    for worker in workers:
        if worker.lately is not None:
            for labels, psi in worker.lately.after.series("odradek_feature_drift_psi"):
                worst[labels["feature"]] = max(psi, worst.get(labels["feature"], 0.0))
    return _named(worst, "{:.2f}")


def _most(workers: Iterable[Seen], name: str, label: str) -> str:
    found: Counter[str] = Counter()
    for worker in workers:
        if worker.long is not None:
            found.update(worker.long.increases(name, label))
    return _named(found, "{:,.0f}")


def _named(values: Mapping[str, float], form: str) -> str:
    most = sorted(values.items(), key=lambda item: -item[1])[:_SHOWN]
    return ", ".join(f"{name} {form.format(value)}" for name, value in most)


def plain(text: str) -> str:
    """Return a text of others without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Return as much of a printable text as fits so many columns."""
    ends = accumulate(map(_columns, text))
    return text[: sum(end <= width for end in ends)]


def _rate(count: float, seconds: float) -> str:
    rate = count / seconds if seconds > 0 else 0.0
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} old"
    return "new"
