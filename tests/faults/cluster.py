"""Three real brokers that are one Kafka: what a worker meets when one of them goes.

This module owns three `Broker`s, how they find each other, and what they replicate.

1. Every topic is on all three, and takes writes as long as two are in sync.
2. Each broker keeps its ports and its data until the cluster closes.

Nodes are named by Kafka's own numbers, 1 to 3. Each is a controller as well, so two must run for
anything to change: with one left, even a stop in order would wait for ever.
"""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self
from uuid import uuid4

from confluent_kafka.admin import AdminClient

from demo.broker import PORT_TAKEN, START_ATTEMPTS_MAX, Broker, BrokerUnavailable, install
from demo.kafka_wire import HOST, free_port

NODES = (1, 2, 3)
ASK_S = 10.0
WAIT_S = 60.0
POLL_S = 0.02

PROPERTIES: dict[str, str | int] = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    # A dead node is missed after so long: 3.0 s without a leader, and 6.5 s where the node was the
    # active controller too. One second, as for a lone broker, would also throw out a living node
    # when the machine is busy for a second.
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 300,
}


class Cluster:
    """Three brokers for as long as the `with` block, in temporary folders.

    Properties are Kafka's own, for all three, and go on top of PROPERTIES.
    """

    def __init__(self, properties: Mapping[str, str | int] | None = None) -> None:
        self._properties = {**PROPERTIES, **(properties or {})}
        self.brokers: dict[int, Broker] = {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all three at once, and return when they answer. Raises BrokerUnavailable."""
        for attempts_left in reversed(range(START_ATTEMPTS_MAX)):
            self._prepare()
            try:
                # None of them answers before two run, so one after the other would wait for ever.
                with ThreadPoolExecutor(len(NODES)) as starters:
                    list(starters.map(Broker.start, self.brokers.values()))
            except BrokerUnavailable as unavailable:
                # The nodes know each other by their ports: all three move, or none does.
                if PORT_TAKEN not in str(unavailable) or not attempts_left:
                    raise
                self.close()
            else:
                self._wait(lambda: len(self._admin().list_topics(timeout=ASK_S).brokers) == 3)
                return

    def kill(self, node: int) -> None:
        """End a node as a crash would; its data stays."""
        self.brokers[node].kill()

    def stop(self, node: int) -> None:
        """Ask a node to end: it hands its leaderships over first."""
        self.brokers[node].stop()

    def restart(self, node: int) -> None:
        """Start a node on the same data and ports, stopping it first if it runs."""
        self.brokers[node].restart()

    def pause(self, node: int) -> None:
        """Freeze a node: its connections stay open and it does not answer."""
        self.brokers[node].pause()

    def resume(self, node: int) -> None:
        """Let a frozen node go on."""
        self.brokers[node].resume()

    def close(self) -> None:
        """Kill all three and remove what they wrote."""
        # Not asked to stop: the last would wait for a second controller for ever.
        for broker in self.brokers.values():
            broker.close()

    @property
    def bootstrap_servers(self) -> str:
        """Return the addresses of all three."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers.values())

    def create_topics(
        self, partitions: Mapping[str, int], config: Mapping[str, str] | None = None
    ) -> None:
        """Create topics on all three, and return when clients see them, every replica in sync."""
        self.brokers[NODES[0]].create_topics(partitions, config)
        self.wait_until_in_sync(*partitions)

    def leader_of(self, topic: str, partition: int) -> int:
        """Return the node that leads a partition, or -1 while none does."""
        found = self._admin().list_topics(topic, timeout=ASK_S).topics[topic]
        return int(found.partitions[partition].leader) if partition in found.partitions else -1

    def wait_until_in_sync(self, *topics: str) -> None:
        """Wait until all three nodes have all of these topics. Raises BrokerUnavailable."""
        self._wait(lambda: all(self._is_in_sync(topic) for topic in topics))

    def _is_in_sync(self, topic: str) -> bool:
        found = self._admin().list_topics(topic, timeout=ASK_S).topics[topic]
        return bool(found.partitions) and all(
            len(partition.isrs) == len(NODES) for partition in found.partitions.values()
        )

    def _prepare(self) -> None:
        """Make three brokers that know of each other, each with a formatted folder of its own."""
        kafka = install()
        self.brokers = {node: Broker(port=free_port()) for node in NODES}
        voters = (f"{node}@{HOST}:{broker.ports[1]}" for node, broker in self.brokers.items())
        together = {**self._properties, "controller.quorum.voters": ",".join(voters)}
        for node, broker in self.brokers.items():
            broker.properties = {**together, "node.id": node}
            broker.folder.mkdir(mode=0o700)
            shutil.copytree(kafka.folder / "formatted", broker.folder / "data")
            # The folder was formatted for node 1, and Kafka tells copies apart by their numbers.
            identity = broker.folder / "data" / "meta.properties"
            own = {"node.id": str(node), "directory.id": _fresh_id()}
            kept = [
                line
                for line in identity.read_text().splitlines()
                if line.partition("=")[0] not in own
            ]
            lines = [*kept, *(f"{key}={value}" for key, value in own.items())]
            identity.write_text("\n".join(lines) + "\n")

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(broker.log_tail(5) for broker in self.brokers.values())
                raise BrokerUnavailable(
                    f"The three brokers did not come to what was waited for within {WAIT_S:g} s; "
                    f"their logs end:\n{logs}"
                )
            time.sleep(POLL_S)


def _fresh_id() -> str:
    """Return an id as Kafka writes them. One that begins with "-" is not taken everywhere."""
    return base64.urlsafe_b64encode(b"f" + uuid4().bytes[1:]).decode().rstrip("=")
