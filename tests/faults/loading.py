"""Has a broker that starts loaded its groups before it serves them?

Kafka 4.3.1 loads a group partition as it starts, and again once it has registered and leads it in a
new epoch. Where the second load is asked for while the first is under way, the end of the first is
taken for that of the second: the broker serves its groups while they are being loaded. It then
hands out offsets of long ago, and sets no timers for members that it has not come to yet. That is
not the fault that is dealt: workers are kept from such a start, and it is counted.
"""

from __future__ import annotations

import re
import time

from demo.broker import Broker
from tests.faults.proxy import Proxy

# By these lines a broker tells of its groups.
GROUP_LOG = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info"
LOG_LINES = 100_000
LOADED_S, LOOK_S = 2.0, 0.02
STARTS_MAX = 6
_TOLD = re.compile(r"(Loaded) (?:classic|consumer) group|(Unloading) group metadata")


def start(broker: Broker, proxy: Proxy) -> int:
    """Start a broker, and let those behind the proxy reach it once its groups are loaded; return
    how many starts were false.

    Raises:
        TimeoutError: none of several starts was a true one.
    """
    proxy.shut()
    try:
        for false_starts in range(STARTS_MAX):
            broker.start()
            if _is_loaded(broker):
                return false_starts
            broker.kill()
        raise TimeoutError(f"in {STARTS_MAX} starts the broker served its groups half loaded")
    finally:
        proxy.open()


def _is_loaded(broker: Broker) -> bool:
    deadline = time.monotonic() + LOADED_S
    while (loaded := loading(broker.log_tail(LOG_LINES))) is None:
        if time.monotonic() > deadline:
            return not _TOLD.search(broker.log_tail(LOG_LINES))  # There is no group yet.
        time.sleep(LOOK_S)
    return loaded


def loading(log: str) -> bool | None:
    """Say by its log since its start whether the first load of a broker's groups came to its end
    undisturbed and is the last; None: not known yet."""
    told = [match.lastindex == 1 for match in _TOLD.finditer(log)]
    if not told:
        return None
    if not told[0]:
        return False  # Unloaded before it was loaded.
    return True if told[-1] else None
