"""The terms of a run: how a group is run, and so how soon it must be back."""

from __future__ import annotations

from dataclasses import dataclass

# A session that expires begins a rebalance: each member hears of it with its next heartbeat, joins,
# asks where to begin, and catches up.
REBALANCE_S = 1.5
METADATA_S = 1.0  # How often clients look at their topics.
MIB = 1024 * 1024


@dataclass(frozen=True)
class Terms:
    """How a group is run, and so how soon it must be back."""

    workers: int = 3
    partitions: int = 4
    rate: float = 400.0
    session_s: float = 5.0  # Longer than a broker needs to come back, so that this expels nobody.
    max_poll_s: float = 15.0  # So long a rebalance waits for members that are gone.
    delivery: str = "at-least-once"
    protocol: str = "classic"
    static_ids: bool = False
    transaction_timeout_s: float = 5.0
    transaction_sweep_s: float = 0.5
    batch_max: int = 200
    seed: int = 1
    stop_timeout_s: float = 10.0
    log_level: str = "info"

    @property
    def exactly_once(self) -> bool:
        return self.delivery == "exactly-once"

    @property
    def death_limit_s(self) -> float:
        """How long a worker's death may hold up the flow."""
        if not self.exactly_once:
            return self.session_s + REBALANCE_S
        swept_s = self.transaction_timeout_s + self.transaction_sweep_s
        return max(self.session_s, swept_s) + REBALANCE_S

    def broker_properties(self) -> dict[str, str | int]:
        """What the broker must be told for these terms."""
        return {
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": int(
                self.transaction_sweep_s * 1000
            ),
            "group.consumer.session.timeout.ms": int(self.session_s * 1000),
            # Little to load at a start: see `tests.faults.loading`.
            "offsets.topic.segment.bytes": MIB,
            "transaction.state.log.segment.bytes": MIB,
            "log.cleaner.backoff.ms": 1000,
        }

    def settings(self) -> dict[str, str]:
        """The workers' settings."""
        session_ms = str(int(self.session_s * 1000))
        settings = {
            "ODRADEK_BATCH_MAX": str(self.batch_max),
            "ODRADEK_HTTP_HOST": "127.0.0.1",
            "ODRADEK_STOP_TIMEOUT_S": f"{self.stop_timeout_s:g}",
            "ODRADEK_DELIVERY": self.delivery,
            "ODRADEK_LOG_LEVEL": self.log_level,
            "KAFKA_CONSUMER_MAX_POLL_INTERVAL_MS": str(int(self.max_poll_s * 1000)),
            "KAFKA_RECONNECT_BACKOFF_MAX_MS": "250",
            # No longer than a transaction may last.
            "KAFKA_SOCKET_TIMEOUT_MS": str(int(self.transaction_timeout_s * 1000)),
            "KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS": str(int(METADATA_S * 1000)),
        }
        if self.protocol == "consumer":
            settings["KAFKA_CONSUMER_GROUP_PROTOCOL"] = "consumer"
        else:
            settings["KAFKA_CONSUMER_SESSION_TIMEOUT_MS"] = session_ms
            settings["KAFKA_CONSUMER_HEARTBEAT_INTERVAL_MS"] = "300"
        if self.exactly_once:
            settings["KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS"] = str(
                int(self.transaction_timeout_s * 1000)
            )
        return settings
