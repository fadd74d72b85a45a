"""A page by HTTP: whole within its bounds, or an error, whatever the other side does."""

from __future__ import annotations

import threading
import time

import pytest

from tests.components import within
from tests.endpoints import a_page, answering, at_once, drip
from worker import fetch as module
from worker.fetch import fetch

WITHIN_S = 0.5
OK = b"HTTP/1.1 200 OK\r\n"


def test_a_page_is_its_text_and_no_thread_waits_for_the_deadline():
    before = threading.active_count()
    with answering(at_once(a_page("grün\n"))) as endpoint:
        assert fetch(f"http://{endpoint}/metrics", 30) == "grün\n"
    assert within(lambda: threading.active_count() <= before, wait_s=10)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 ",
        OK + b"Content-Type: text/",
        OK + b"Content-Length: 1000000\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
        OK + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
    ids=["nothing", "status", "header", "length", "chunk", "no length", "continue"],
)
def test_what_drips_is_given_up_at_the_deadline_and_leaves_nothing_behind(head):
    before = threading.active_count()
    with answering(drip(head)) as endpoint:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"^no whole answer within 0.5 s$"):
            fetch(f"http://{endpoint}/metrics", WITHIN_S)
        assert time.monotonic() - began < WITHIN_S + 1
    assert within(lambda: threading.active_count() <= before)


def test_one_that_says_nothing_is_given_up_too():
    hold = threading.Event()
    with answering(lambda _: hold.wait(30) and None) as endpoint:
        with pytest.raises(TimeoutError, match="no whole answer"):
            fetch(f"http://{endpoint}/metrics", WITHIN_S)
        hold.set()


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"Content-Length: 2000\r\n\r\n"])
def test_a_page_that_is_too_large_is_refused(head, monkeypatch):
    monkeypatch.setattr(module, "BODY_MAX", 1000)
    with (
        answering(at_once(head + b"x" * 2000)) as endpoint,
        pytest.raises(ValueError, match="larger than"),
    ):
        fetch(f"http://{endpoint}/metrics", 30)
    with answering(at_once(a_page("x" * 1000))) as endpoint:
        assert len(fetch(f"http://{endpoint}/metrics", 30)) == 1000


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (OK + b"Content-Length: 9\r\n\r\n1234", "lacks the last 5 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n1234", "does not speak HTTP: Incomplete"),
        (b"HTTP/1.1 503 Away\r\n\r\n", "it answers 503 Away"),
        (b"SSH-2.0\r\n", "does not speak HTTP: BadStatusLine"),
        (OK + b"\r\n\xff", "decode"),
    ],
)
def test_what_is_no_whole_page_is_an_error(answer, told):
    with (
        answering(at_once(answer)) as endpoint,
        pytest.raises((OSError, ValueError), match=told),
    ):
        fetch(f"http://{endpoint}/metrics", 30)


@pytest.mark.parametrize("host", ["a..b", "a b"])
def test_a_host_that_is_none_is_an_error(host):
    with pytest.raises((OSError, ValueError)):
        fetch(f"http://{host}:80/metrics", 30)
