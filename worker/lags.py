"""How many records each of our partitions is behind its end.

librdkafka hears of a partition's end with each fetch, and tells it in its statistics. It fetches
nothing of a partition that is paused, as all are while the worker holds: the end that it tells
then stands still, however many records arrive. So where nothing has moved between two tellings,
the leaders are asked themselves, without waiting, by an admin client that is new each time (see
`worker.positions`): 3 ms of CPU in 5 s, in which there was nothing else to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from schemas.errors import SettingsError
from worker.kafka_client import BrokerWatch
from worker.librdkafka_metrics import LibrdkafkaMetrics
from worker.ranges import Ranges
from worker.statistics import read_statistics

log = logging.getLogger(__name__)


class Lags:
    """The lag by partition, from the partitions' ends and our own positions.

    The consumer itself is not called: it serialises its callers, and a quiet topic starves others.
    """

    def __init__(
        self,
        topic: str,
        positions: Mapping[int, int],
        watch: BrokerWatch,
        metrics: LibrdkafkaMetrics,
        make_admin: Callable[[], AdminClient],
    ) -> None:
        self._topic = topic
        self._positions = positions
        self._watch = watch
        self._metrics = metrics
        self._make_admin = make_admin
        self._ends: Mapping[int, int] = {}  # Partition -> its end, as far as known.
        self._told: tuple[Mapping[int, int], Mapping[int, int]] = {}, {}
        self._silent = False  # The leaders could not be asked, and it is said.
        self._asked: Ranges | None = None  # Answers by itself, within its request's timeout.

    def on_statistics(self, text: str) -> None:
        """librdkafka's `stats_cb`."""
        statistics = read_statistics(text)
        self._watch.on_statistics(statistics)
        self._metrics.hear("consumer", statistics)
        told = statistics.ends(self._topic), dict(self._positions)
        nothing_moved, self._told = told == self._told, told
        self._ends = self._as_answered() if nothing_moved else told[0]
        self._asked = None
        if nothing_moved and self._watch.a_broker_answers and self._positions:
            self._ask([*self._positions])

    def _ask(self, partitions: list[int]) -> None:
        """Ask the leaders; a worker does not end for want of its lag."""
        try:
            self._asked = Ranges(self._make_admin(), self._topic, partitions, from_time_ms=None)
            self._silent = False
        except (SettingsError, KafkaException, RuntimeError) as error:  # Of a thread not had, too.
            if not self._silent:
                self._silent = True
                log.warning(
                    "Where %s ends cannot be asked: %s. The lag stands still until something "
                    "moves or it can be asked again; said once.",
                    self._topic,
                    error,
                )

    def positions(self) -> Mapping[int, int]:
        """Return the offset that is read next in each partition. Any thread may ask."""
        return dict(self._positions)

    def __call__(self) -> Mapping[int, int]:
        """Return the lag of each partition that is being read. Any thread may ask."""
        ends = self._as_answered()
        return {
            partition: max(0, ends[partition] - position)
            for partition, position in dict(self._positions).items()
            if partition in ends
        }

    def _as_answered(self) -> Mapping[int, int]:
        """Return the ends, with those that the leaders have told since; any thread may ask."""
        ends, asked = self._ends, self._asked
        if asked is None or not asked.are_told():
            return ends
        try:
            answers = asked.held("")
        except KafkaException as error:
            log.debug("Where %s ends is not told: %s", self._topic, error)
            return ends
        return {**ends, **{partition: told.high for partition, told in answers.items()}}
