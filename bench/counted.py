"""What a worker says of its own work: the records that it counts on /metrics, by outcome."""

from __future__ import annotations

import re
import urllib.request

SCRAPE_TIMEOUT_S = 5.0
_COUNT = re.compile(r'^odradek_records_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


def outcomes(http_port: int) -> dict[str, int]:
    """Return the records whose outputs are acknowledged; raises OSError where nobody answers."""
    url = f"http://127.0.0.1:{http_port}/metrics"
    with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT_S) as reply:
        text = reply.read().decode()
    return {outcome: int(float(count)) for outcome, count in _COUNT.findall(text)}
