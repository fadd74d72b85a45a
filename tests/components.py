"""Waiting for real components, and what happens where one cannot be had."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

import pytest

from demo.broker import BrokerUnavailable

WAIT_S = 30.0

Started = TypeVar("Started")


@contextmanager
def or_skip(component: Callable[[], AbstractContextManager[Started]]) -> Iterator[Started]:
    """Run a real component. Where it cannot be had: a skip, or a failure where CI is set."""
    try:
        context = component()
        started = context.__enter__()
    except BrokerUnavailable as unavailable:
        if os.environ.get("CI"):
            pytest.fail(f"no Kafka, and CI is set: {unavailable}")
        pytest.skip(f"no Kafka here: {unavailable}")
    try:
        yield started
    finally:
        context.__exit__(None, None, None)


def program(name: str, package: str) -> str:
    """Return the path of a program of a Debian package; without it: as `or_skip`."""
    path = shutil.which(name)
    told = f"it comes with Debian's package {package}, which `make test-deps` installs"
    if path is None and os.environ.get("CI"):
        pytest.fail(f"no {name}, and CI is set; {told}")
    if path is None:
        pytest.skip(f"no {name} here; {told}")
    return path


def within(condition: Callable[[], object], wait_s: float = WAIT_S) -> bool:
    """Ask again and again until the condition holds or the time is over."""
    deadline = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
