"""The metrics of the worker's state and of its two Kafka clients, each declared once."""

from __future__ import annotations

from worker.metric import Label, Metric

_CLIENT = Label("client", ("consumer", "producer"))
_PARTITION = Label("partition", bound="the partitions that the worker has")

# The worker's state.
BUILD_INFO = Metric(
    "gauge",
    "odradek_build_info",
    "1, and the worker's own version.",
    "1",
    (Label("version", bound="one"),),
)
READY = Metric(
    "gauge", "odradek_ready", "1 while /readyz says so: events are taken and nothing holds.", "1"
)
ALIVE = Metric("gauge", "odradek_alive", "0 where /healthz fails: the worker is stuck.", "1")
HELD = Metric(
    "gauge",
    "odradek_held",
    "1 while the worker holds, alive but writing and committing nothing, by what holds it; "
    "rejects is the open breaker.",
    "1",
    (Label("hold", ("rejects", "output", "input")),),
)

# The group.
LAG = Metric(
    "gauge",
    "odradek_lag_records",
    "Records between this worker's place in a partition and its end.",
    "records",
    (_PARTITION,),
)
POSITION = Metric(
    "gauge",
    "odradek_position_offset",
    "The offset in a partition that this worker reads next.",
    "offset",
    (_PARTITION,),
)
ASSIGNED = Metric(
    "gauge", "odradek_assigned_partitions", "How many partitions the worker reads.", "partitions"
)
REBALANCES = Metric(
    "counter",
    "odradek_rebalances",
    "Changes to this worker's partitions, by kind.",
    "changes",
    (Label("kind", ("assigned", "revoked", "lost")),),
)
COMMITS = Metric(
    "counter",
    "odradek_commits",
    "Offset commits, or transactions, by outcome.",
    "commits",
    (Label("outcome", ("ok", "failed")),),
)
PRODUCE_ERRORS = Metric(
    "counter",
    "odradek_produce_errors",
    "Outputs that were not taken, by Kafka's name of the error; none is lost by it. Not there "
    "before the first.",
    "records",
    (Label("code", bound="librdkafka's names of errors, such as `MSG_SIZE_TOO_LARGE`"),),
)

# What librdkafka says of itself, every 5 s.
KAFKA_STATISTICS_AT = Metric(
    "gauge",
    "odradek_kafka_statistics_timestamp_seconds",
    "When the client last gave its statistics, from which the other odradek_kafka metrics are.",
    "epoch seconds",
    (_CLIENT,),
)
KAFKA_BROKERS = Metric(
    "gauge",
    "odradek_kafka_brokers",
    "The brokers that the client knows, by the state of its connection; one that it has not "
    "needed yet is connecting or down.",
    "brokers",
    (_CLIENT, Label("state", ("up", "connecting", "down"))),
)
KAFKA_ROUND_TRIP = Metric(
    "gauge",
    "odradek_kafka_round_trip_seconds",
    "Mean round trip of the client's requests in the last 5 s, of the slowest broker; 0 if there "
    "was none. Of the consumer, that of heartbeats and commits: a fetch waits at the broker.",
    "seconds",
    (_CLIENT,),
)
KAFKA_ROUND_TRIP_P99 = Metric(
    "gauge",
    "odradek_kafka_round_trip_p99_seconds",
    "The 99th percentile of the same round trips.",
    "seconds",
    (_CLIENT,),
)
KAFKA_THROTTLE = Metric(
    "gauge",
    "odradek_kafka_throttle_seconds",
    "Mean time for which a broker's quota held the client back, of the slowest broker.",
    "seconds",
    (_CLIENT,),
)
KAFKA_OUTBOUND = Metric(
    "gauge",
    "odradek_kafka_outbound_messages",
    "Messages in the client's outbound queue, or on their way and not acknowledged.",
    "messages",
    (_CLIENT,),
)
KAFKA_OUTBOUND_BYTES = Metric(
    "gauge", "odradek_kafka_outbound_bytes", "The bytes of these messages.", "bytes", (_CLIENT,)
)
KAFKA_PREFETCHED = Metric(
    "gauge",
    "odradek_kafka_prefetched_messages",
    "Messages that the client has fetched and the worker has not read yet.",
    "messages",
    (_CLIENT,),
)
KAFKA_REQUESTS = Metric(
    "gauge",
    "odradek_kafka_waiting_requests",
    "Requests that wait to be sent, or for their answer.",
    "requests",
    (_CLIENT,),
)
KAFKA_ERRORS = Metric(
    "counter",
    "odradek_kafka_request_errors",
    "Requests that failed: not sent, answered with rubbish, or timed out.",
    "requests",
    (_CLIENT, Label("kind", ("transmit", "receive", "timeout"))),
)
