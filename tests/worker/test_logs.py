"""Log lines: JSON outside a terminal, each a line of its own."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

import pytest

from worker import logs
from worker.logs import JsonLines


@pytest.fixture
def root_logger():
    """What `configure` does to the root logger is undone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    return logging.LogRecord("worker.x", logging.INFO, "x.py", 1, message, arguments, **more)


def test_a_line_is_one_json_object():
    line = JsonLines().format(record("Took %d\nof \u00e9", 3, exc_info=None))
    assert "\n" not in line
    held = json.loads(line)
    assert held["message"] == "Took 3\nof \u00e9"
    assert (held["level"], held["logger"]) == ("info", "worker.x")
    assert datetime.fromisoformat(held["time"]).tzinfo is not None


def test_a_traceback_stays_within_its_line():
    try:
        int("why")
    except ValueError:
        line = JsonLines().format(record("failed", exc_info=sys.exc_info()))
    assert "\n" not in line
    assert "ValueError: invalid literal" in json.loads(line)["traceback"]


def test_a_call_has_fields_of_its_own_beside_the_others():
    line = record("Holding: %s", "full", exc_info=None)
    line.__dict__.update(logs.fields(hold="output", held=1))
    held = json.loads(JsonLines().format(line))
    assert (held["hold"], held["held"], held["message"]) == ("output", 1, "Holding: full")


@pytest.mark.usefixtures("root_logger")
def test_outside_a_terminal_auto_means_json(capsys):
    logs.configure("auto", "info")
    logging.getLogger("worker.y").info("hello")
    logging.getLogger("worker.y").debug("too much")
    out, err = capsys.readouterr()
    assert not out
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["hello"]


@pytest.mark.usefixtures("root_logger")
def test_text_can_be_asked_for(capsys):
    logs.configure("text", "warning")
    logging.getLogger("worker.y").info("too much")
    logging.getLogger("worker.y").warning("careful")
    err = capsys.readouterr().err
    assert err.endswith("WARNING careful\n")
    assert "too much" not in err
