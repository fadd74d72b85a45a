"""How many records each of our partitions is behind its end."""

from __future__ import annotations

from collections.abc import Mapping

from worker.kafka_client import BrokerWatch, read_statistics


class Lags:
    """The lag by partition, from librdkafka's statistics and our own positions.

    The client itself is not called: it serialises its callers, and a quiet topic starves others.
    """

    def __init__(self, topic: str, positions: Mapping[int, int], watch: BrokerWatch) -> None:
        self._topic = topic
        self._positions = positions
        self._watch = watch
        self._ends: dict[int, int] = {}  # Partition -> its end, by the latest statistics.

    def on_statistics(self, text: str) -> None:
        """librdkafka's `stats_cb`."""
        statistics = read_statistics(text)
        self._watch.on_statistics(statistics)
        self._ends = statistics.ends(self._topic)

    def __call__(self) -> Mapping[int, int]:
        """Return the lag of each partition that is being read. Any thread may ask."""
        ends = self._ends
        return {
            partition: max(0, ends[partition] - position)
            for partition, position in dict(self._positions).items()
            if partition in ends
        }
