"""Log lines: text on a terminal, one JSON object a line elsewhere. Always on stderr.

One line per change of state, never one per event. What a metric has as a label, the line of the
same change has as a field of the same name (`fields`): `hold`, `kind`, `outcome`, `provider`.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import Literal

import msgspec

SELDOM_S = 60.0
RECORDS = "worker.records"  # For what is said of single records.
_NUMBERS = re.compile(r"\d+")

Format = Literal["auto", "text", "json"]


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Return what a log call takes as `extra`, for its line to have these fields."""
    return {"fields": values}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, the call's own fields,
    and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class Seldom(logging.Filter):
    """Lets a text through once a minute, whatever numbers it holds.

    librdkafka logs every attempt to connect to a broker that is away, 20 a second, and what is
    wrong with one record or output is often wrong with thousands.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = _NUMBERS.sub("", record.getMessage())
        now = time.monotonic()
        if now - self._last.get(text, -SELDOM_S) < SELDOM_S:
            return False
        self._last = {text: at for text, at in self._last.items() if now - at < SELDOM_S}
        self._last[text] = now
        return True


def configure(log_format: Format, level: str) -> None:
    """Send all log lines to stderr in this format."""
    handler = logging.StreamHandler()
    if log_format == "json" or (log_format == "auto" and not sys.stderr.isatty()):
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    for name in ("librdkafka", RECORDS, "worker.sink"):
        logging.getLogger(name).filters = [Seldom()]
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
