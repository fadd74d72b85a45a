"""What each alert is tried on: series that must make it fire, and near misses that must not.

Series are written as promtool does: `a+bxn` grows by b for n steps, `axn` stays; a step is a
minute. A series is of the job that the rules watch unless it names another.
"""

from __future__ import annotations

from typing import NamedTuple

A, B = 'instance="a:9108"', 'instance="b:9108"'
OTHER = f'job="another", {A}'
MINUTE_S = 60


class Case(NamedTuple):
    """At `minutes`, the alert fires with these labels and this summary; without them, it does
    not."""

    alert: str
    why: str
    series: dict[str, str]
    minutes: int
    labels: dict[str, str] | None = None
    summary: str = ""

    @property
    def fires(self) -> bool:
        return self.labels is not None


INSTANCE = {"instance": "a:9108"}
OTHER_RECORDS = f'odradek_records_total{{{OTHER}, outcome="normal"}}'
MISSING = "1 of 1 workers are not there"
QUIET = "No record has got through for 10m"
JUMPED = "Worker a:9108 jumped over input that was lost before it was read"
STARTS = "Worker a:9108 was started again 3 times in 15m"
HELD = "Worker a:9108 holds (rejects): it writes and commits nothing"
UNREADY = "Worker a:9108 is up and takes no events"


def records(
    normal: str, anomalous: str = "0x120", dead: str = "0x120", worker: str = A
) -> dict[str, str]:
    return {
        f'odradek_records_total{{{worker}, outcome="normal"}}': normal,
        f'odradek_records_total{{{worker}, outcome="anomalous"}}': anomalous,
        f'odradek_records_total{{{worker}, outcome="dead_letter"}}': dead,
    }


def unscorable(normal: str, events: str) -> dict[str, str]:
    return {**records(normal), f'odradek_records_total{{{A}, outcome="unscorable"}}': events}


def letters(normal: str, dead: str) -> dict[str, str]:
    return {
        **records(normal, dead=dead),
        f'odradek_dead_letters_total{{{A}, reason="not_json"}}': dead,
    }


def ahead(normal: str, events: str) -> dict[str, str]:
    return {**records(normal), f"odradek_events_ahead_of_clock_total{{{A}}}": events}


def latency(within_5_s: str, all_of_them: str) -> dict[str, str]:
    return {
        f'odradek_event_latency_seconds_bucket{{{A}, le="2.5"}}': "0x60",
        f'odradek_event_latency_seconds_bucket{{{A}, le="5.0"}}': within_5_s,
        f'odradek_event_latency_seconds_bucket{{{A}, le="10.0"}}': all_of_them,
        f'odradek_event_latency_seconds_bucket{{{A}, le="+Inf"}}': all_of_them,
        f"odradek_event_latency_seconds_count{{{A}}}": all_of_them,
    }


def lag(*partitions: str, worker: str = A) -> dict[str, str]:
    return {
        f'odradek_lag_records{{{worker}, partition="{number}"}}': values
        for number, values in enumerate(partitions)
    }


def positions(*partitions: str, worker: str = A) -> dict[str, str]:
    return {
        f'odradek_position_offset{{{worker}, partition="{number}"}}': values
        for number, values in enumerate(partitions)
    }


def ready(values: str, held: str = "0x60") -> dict[str, str]:
    return {
        f"odradek_ready{{{A}}}": values,
        f'odradek_held{{{A}, hold="rejects"}}': held,
        f'odradek_held{{{A}, hold="output"}}': "0x60",
    }


WORKERS = (
    Case("OdradekWorkersMissing", "it does not answer", {f"up{{{A}}}": "0x10"}, 5, {}, MISSING),
    Case("OdradekWorkersMissing", "it has vanished", {f"up{{{A}}}": "1x3 stale"}, 8, {}, MISSING),
    Case("OdradekWorkersMissing", "it is there", {f"up{{{A}}}": "1x10"}, 8),
    Case("OdradekWorkersMissing", "one scrape failed", {f"up{{{A}}}": "1 1 0 1x10"}, 3),
    Case("OdradekWorkersMissing", "others are there", {f"up{{{OTHER}}}": "1x9"}, 5, {}, MISSING),
    Case(
        "OdradekWorkersMissing",
        "it comes for half a minute every few, and this is one alert",
        {f"up{{{A}}}": "0x4 1 0x4 1 0x4 1 0x9"},
        10,
        {},
        MISSING,
    ),
    Case("OdradekWorkersMissing", "it is back for good", {f"up{{{A}}}": "0x4 1x20"}, 12),
    Case(
        "OdradekRestarts",
        "three restarts in a quarter of an hour",
        {f"process_start_time_seconds{{{A}}}": "1 2 3 4x10"},
        8,
        INSTANCE,
        STARTS,
    ),
    Case(
        "OdradekRestarts",
        "a rolling update, and one more",
        {f"process_start_time_seconds{{{A}}}": "1 2 3x20"},
        8,
    ),
    Case(
        "OdradekRestarts",
        "every five minutes: of the last 15 the third is out and in, and this is one alert",
        {f"process_start_time_seconds{{{A}}}": "1x4 2x4 3x4 4x5 5x4 6x4 7x40"},
        35,
        INSTANCE,
        STARTS,
    ),
    Case(
        "OdradekHolding",
        "the breaker is open",
        {
            f'odradek_held{{{A}, hold="rejects"}}': "1x9",
            f'odradek_held{{{A}, hold="input"}}': "0x9",
        },
        4,
        {**INSTANCE, "hold": "rejects"},
        HELD,
    ),
    Case("OdradekHolding", "for a moment", {f'odradek_held{{{A}, hold="output"}}': "0 0 1 0x9"}, 2),
    Case("OdradekNotReady", "for long", ready("0x20"), 8, INSTANCE, UNREADY),
    Case("OdradekNotReady", "while it starts", ready("0 0 0 0 1x20"), 7),
    Case("OdradekNotReady", "it holds, which is told already", ready("0x20", held="1x20"), 8),
)

FLOW = (
    Case("OdradekNoEvents", "the topic is silent", records("5x30"), 13, {}, QUIET),
    Case("OdradekNoEvents", "there is no worker, so no data", {}, 13, {}, QUIET),
    Case("OdradekNoEvents", "a restart is no event", records("9x9 0x20"), 16, {}, QUIET),
    Case("OdradekNoEvents", "only another job's", {OTHER_RECORDS: "0+9x30"}, 13, {}, QUIET),
    Case("OdradekNoEvents", "one event in two minutes", records("0+0.5x30"), 25),
    Case("OdradekNoEvents", "one in nine minutes", records("0x9 1x8 2x8 3x8"), 34),
    Case("OdradekNoEvents", "Prometheus and the worker are new", records("0x9"), 4),
    Case(
        "OdradekLagGrowing",
        "on two partitions",
        lag("0+3000x60", "0+3000x60"),
        30,
        {},
        "The lag grows by 100 records a second",
    ),
    Case(
        "OdradekLagGrowing",
        "one of its workers has gone, and another goes on",
        {**lag("0+6000x15 stale"), **lag("_x16 96000+6000x60", worker=B)},
        30,
        {},
        "The lag grows by 100 records a second",
    ),
    Case(
        "OdradekLagGrowing",
        "steady, while its partition goes from one worker to another",
        {**lag("90000x17 stale"), **lag("_x15 90000x60", worker=B)},
        30,
    ),
    Case("OdradekLagGrowing", "large, and shrinking", lag("900000-1000x60"), 30),
    Case("OdradekLagGrowing", "large, and steady", lag("900000x60"), 30),
    Case("OdradekLagGrowing", "growing, and small", lag("0+100x60"), 30),
    Case("OdradekLagGrowing", "a burst that is caught up", lag("0 20000 40000 20000 0x60"), 13),
    Case(
        "OdradekPartitionStalled",
        "one of two, slowly",
        {**lag("0+3x60", "5x60"), **positions("70x60", "0+100x60")},
        30,
        {"partition": "0"},
        "Partition 0 stands still, 90 records behind",
    ),
    Case(
        "OdradekPartitionStalled",
        "from the one worker to the other, which stands still too",
        {
            **lag("50x8 stale"),
            **positions("70x8 stale"),
            **lag("_x9 50x60", worker=B),
            **positions("_x9 70x60", worker=B),
        },
        30,
        {"partition": "0"},
        "Partition 0 stands still, 50 records behind",
    ),
    Case(
        "OdradekPartitionStalled",
        "behind, and moving now and then",
        {**lag("900000x60"), **positions("0x9 1x9 2x9 3x9 4x9")},
        40,
    ),
    Case(
        "OdradekPartitionStalled",
        "read to its end, but for the mark of a transaction",
        {**lag("1x60"), **positions("70x60")},
        30,
    ),
    Case(
        "OdradekLatencyHigh",
        "half of the events are late",
        latency("0+50x60", "0+100x60"),
        15,
        {},
        "99% of events wait up to 9.9s for their score",
    ),
    Case("OdradekLatencyHigh", "one in 200 is late", latency("0+199x60", "0+200x60"), 15),
    Case("OdradekLatencyHigh", "no events, no latency", latency("5x60", "9x60"), 15),
    Case("OdradekLatencyHigh", "one a minute, and it is late", latency("0x60", "0+1x60"), 15),
)

RECORDS = (
    Case(
        "OdradekDeadLetters",
        "one in twenty",
        letters("0+95x60", "0+5x60"),
        25,
        {},
        "5% of records cannot be read",
    ),
    Case(
        "OdradekDeadLetters",
        "one in twenty, of two workers of which one starts anew",
        {
            **letters("0+95x14 0+95x60", "0+5x14 0+5x60"),
            **records("0+95x60", dead="0+5x60", worker=B),
            f'odradek_dead_letters_total{{{B}, reason="not_json"}}': "0+5x60",
        },
        25,
        {},
        "5% of records cannot be read",
    ),
    Case("OdradekDeadLetters", "one in 500", letters("0+998x60", "0+2x60"), 25),
    Case("OdradekDeadLetters", "seven of a quiet topic", letters("0x60", "0x20 7x40"), 25),
    Case(
        "OdradekUnscorable",
        "one in twenty",
        unscorable("0+95x60", "0+5x60"),
        25,
        {},
        "5% of events get no score",
    ),
    Case("OdradekUnscorable", "one in 500", unscorable("0+998x60", "0+2x60"), 25),
    Case("OdradekUnscorable", "seven of a quiet topic", unscorable("0x60", "0x20 7x40"), 25),
    Case(
        "OdradekClockSkew",
        "one in ten",
        ahead("0+100x60", "0+10x60"),
        25,
        {},
        "10% of events come from the future",
    ),
    Case("OdradekClockSkew", "one in 200", ahead("0+1000x60", "0+5x60"), 25),
    Case("OdradekClockSkew", "one of three", ahead("0x20 3x40", "0x20 1x40"), 25),
)

DELIVERY = (
    Case(
        "OdradekCommitsFailing",
        "two a minute",
        {f'odradek_commits_total{{{A}, outcome="failed"}}': "0+2x60"},
        15,
        INSTANCE,
        "Commits of worker a:9108 fail, 10 in 5m",
    ),
    Case(
        "OdradekCommitsFailing",
        "one in a rebalance, and many that succeed",
        {
            f'odradek_commits_total{{{A}, outcome="failed"}}': "0x10 1x60",
            f'odradek_commits_total{{{A}, outcome="ok"}}': "0+60x60",
        },
        15,
    ),
    Case(
        "OdradekCommitsFailing",
        "nine in one rebalance",
        {f'odradek_commits_total{{{A}, outcome="failed"}}': "0x10 9x60"},
        15,
    ),
    Case(
        "OdradekCommitsFailing",
        "a restart, which is no failure",
        {f'odradek_commits_total{{{A}, outcome="failed"}}': "9x10 0x60"},
        15,
    ),
    Case(
        "OdradekInputLost",
        "at start, before the first scrape",
        {f"odradek_gaps_total{{{A}}}": "1x60", f"process_start_time_seconds{{{A}}}": "0x60"},
        3,
        INSTANCE,
        JUMPED,
    ),
    Case(
        "OdradekInputLost",
        "in mid-run",
        {
            f"odradek_gaps_total{{{A}}}": "0x30 1x60",
            f"process_start_time_seconds{{{A}}}": "0x90",
        },
        35,
        INSTANCE,
        JUMPED,
    ),
    Case(
        "OdradekInputLost",
        "long ago",
        {f"odradek_gaps_total{{{A}}}": "1x60", f"process_start_time_seconds{{{A}}}": "0x60"},
        40,
    ),
)

CASES = (*WORKERS, *FLOW, *RECORDS, *DELIVERY)
