"""All three dashboards, and here the one of operations: flow, latency, lag, errors, Kafka."""

from __future__ import annotations

from deploy.grafana.detection import DETECTION
from deploy.grafana.overview import LAG, LATENCY, OUTCOMES, OVERVIEW
from deploy.grafana.panels import OURS, Board, Panel, Query
from deploy.grafana.queries import mean, or_none, per_second, quantile

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
            "recps",
            (
                Query(
                    or_none(per_second("odradek_dead_letters_total", "reason") + " > 0", "reason"),
                    "{{reason}}",
                ),
            ),
        ),
        Panel(
            "Records with a flaw",
            "What gets its score, and has something wrong all the same?",
            "recps",
            (
                Query(
                    per_second("odradek_events_ahead_of_clock_total"), "events ahead of the clock"
                ),
                Query(
                    per_second("odradek_sampled_records_ahead_of_clock_total"),
                    "sampled records ahead of the clock",
                ),
                Query(per_second("odradek_ungrouped_events_total"), "of no known group"),
                Query(per_second("odradek_outputs_truncated_total"), "outputs truncated"),
            ),
        ),
        Panel(
            "Input that was lost",
            "Was anything gone before it was read? Since the workers' start; records, at least.",
            "short",
            (
                # No rates: a jump at start is in the first scrape already.
                Query(f"sum(odradek_gaps_total{OURS})", "jumps"),
                Query(f"sum(odradek_lost_records_total{OURS})", "records"),
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
            "Which stage takes the time? Of each stage, the worker that spends most on it; the "
            "rest is reading, mostly waiting.",
            "percentunit",
            (
                Query(
                    per_second(f"{_STAGES}_sum", "stage", 'stage!="read"', over="max"),
                    "{{stage}}",
                ),
            ),
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
            "cps",
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
            "Does Kafka take what it is given? A turn is undone if its transaction is aborted.",
            "cps",
            (
                Query(per_second("odradek_commits_total", "outcome"), "commits {{outcome}}"),
                Query(per_second("odradek_rebalances_total", "kind"), "partitions {{kind}}"),
                Query(
                    or_none(per_second("odradek_produce_errors_total", "code"), "code"),
                    "refused {{code}}",
                ),
                Query(per_second("odradek_turns_undone_total"), "turns undone"),
            ),
        ),
        Panel(
            "Kafka's round trip",
            "Is the broker slow, or does its quota hold a client back? The 99th percentile, and "
            "the mean of the throttling, of the slowest broker.",
            "s",
            (
                Query(
                    f"max by (instance, client) (odradek_kafka_round_trip_p99_seconds{OURS})",
                    "{{instance}} {{client}}",
                ),
                Query(
                    f"max by (instance, client) (odradek_kafka_throttle_seconds{OURS})",
                    "{{instance}} {{client}} throttled",
                ),
            ),
        ),
        Panel(
            "Requests that failed",
            "Does the network or a broker break off what a client asks?",
            "cps",
            (
                Query(
                    per_second("odradek_kafka_request_errors_total", "client, kind"),
                    "{{client}} {{kind}}",
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
