"""The three dashboards, of which two are here: what is shown, and which question it answers."""

from __future__ import annotations

from deploy.grafana.detection import DETECTION, FLAG_RATE, MODEL_AGE
from deploy.grafana.panels import OURS, Board, Panel, Query
from deploy.grafana.queries import mean, none, per_second, quantile

OUTCOMES = Panel(
    "Records by outcome",
    "How many records come, and what becomes of them?",
    "reqps",
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
LAG = Panel(
    "Lag",
    "Do the workers keep up?",
    "short",
    (Query(f"sum by (partition) (odradek_lag_records{OURS})", "partition {{partition}}"),),
)


def _number(title: str, question: str, unit: str, expression: str) -> Panel:
    return Panel(title, question, unit, (Query(expression),), "number", 4)


OVERVIEW = Board(
    "odradek-overview",
    "Odradek: overview",
    "Is all well? Where not, the other two dashboards and the runbook go on from here.",
    (
        _number("Workers", "How many answer?", "short", f"sum(up{OURS})"),
        _number("Ready", "How many take events?", "short", f"sum(odradek_ready{OURS})"),
        _number(
            "Alerts that fire",
            "Does anything need a person?",
            "short",
            'count(ALERTS{job="$job", alertstate="firing"}) or vector(0)',
        ),
        _number("Records a second", "Does it flow?", "reqps", per_second("odradek_records_total")),
        _number("Lag", "Does it keep up?", "short", f"sum(odradek_lag_records{OURS})"),
        MODEL_AGE,
        OUTCOMES,
        FLAG_RATE,
        LATENCY,
        LAG,
    ),
)

_STAGES = "odradek_turn_stage_seconds"
OPERATIONS = Board(
    "odradek-operations",
    "Odradek: operations",
    "Flow, latency, lag, errors and the clients of Kafka: for whom is on call.",
    (
        OUTCOMES,
        Panel(
            "Dead letters by reason",
            "What is wrong with records that cannot be scored?",
            "reqps",
            (
                Query(
                    per_second("odradek_dead_letters_total", "reason")
                    + f" > 0 or {none('reason')}",
                    "{{reason}}",
                ),
            ),
        ),
        LATENCY,
        Panel(
            "Where events wait",
            "Is it late before it comes, in the topic, or in the worker? Means.",
            "s",
            (
                Query(mean("odradek_event_age_at_read_seconds"), "before it is read"),
                Query(mean("odradek_record_wait_seconds"), "of that, in the topic"),
                Query(mean("odradek_event_in_worker_seconds"), "in the worker"),
            ),
        ),
        LAG,
        Panel(
            "Partitions of each worker",
            "Who reads what, and since when?",
            "short",
            (Query(f"max by (instance) (odradek_assigned_partitions{OURS})", "{{instance}}"),),
        ),
        Panel(
            "What a worker does",
            "Which stage takes the time? Seconds a second; the rest is reading, mostly waiting.",
            "percentunit",
            (Query(per_second(f"{_STAGES}_sum", "stage", 'stage!="read"'), "{{stage}}"),),
        ),
        Panel(
            "CPU for a record",
            "Which stage costs what?",
            "s",
            (
                Query(
                    per_second("odradek_turn_stage_cpu_seconds_total", "stage")
                    + " / scalar("
                    + per_second("odradek_records_total")
                    + ")",
                    "{{stage}}",
                ),
            ),
        ),
        Panel(
            "Records in a turn",
            "Is there room? Full turns mean that it works through a backlog.",
            "short",
            (
                Query(mean("odradek_batch_records"), "mean"),
                Query(quantile(0.99, "odradek_batch_records"), "99%"),
            ),
        ),
        Panel(
            "Turns by why they ended",
            "Full: a backlog. Drained: it keeps up.",
            "reqps",
            (Query(per_second("odradek_turns_total", "released"), "{{released}}"),),
        ),
        Panel(
            "Not ready, and holds",
            "Who takes no events, and what holds it?",
            "short",
            (
                Query(f"1 - odradek_ready{OURS}", "{{instance}} not ready"),
                Query(f"max by (instance, hold) (odradek_held{OURS})", "{{instance}} {{hold}}"),
            ),
        ),
        Panel(
            "Commits, rebalances, refused outputs",
            "Does Kafka take what it is given?",
            "reqps",
            (
                Query(per_second("odradek_commits_total", "outcome"), "commits {{outcome}}"),
                Query(per_second("odradek_rebalances_total", "kind"), "partitions {{kind}}"),
                Query(
                    per_second("odradek_produce_errors_total", "code") + f" or {none('code')}",
                    "refused {{code}}",
                ),
            ),
        ),
        Panel(
            "Kafka's round trip",
            "Is the broker slow? The 99th percentile, of the slowest broker.",
            "s",
            (
                Query(
                    f"max by (instance, client) (odradek_kafka_round_trip_p99_seconds{OURS})",
                    "{{instance}} {{client}}",
                ),
            ),
        ),
        Panel(
            "Brokers connected",
            "Does the client have a broker at all?",
            "short",
            (
                Query(
                    'min by (instance, client) (odradek_kafka_brokers{job="$job", state="up"})',
                    "{{instance}} {{client}}",
                ),
            ),
        ),
        Panel(
            "Queued in the clients",
            "Does it pile up inside the worker?",
            "short",
            (
                Query(f"sum by (client) (odradek_kafka_outbound_messages{OURS})", "out {{client}}"),
                Query(
                    f"sum by (client) (odradek_kafka_prefetched_messages{OURS})",
                    "fetched {{client}}",
                ),
            ),
        ),
        Panel(
            "Memory",
            "Does a worker come near its limit?",
            "bytes",
            (Query(f"process_resident_memory_bytes{OURS}", "{{instance}}"),),
        ),
    ),
)

BOARDS = (OVERVIEW, OPERATIONS, DETECTION)
