"""The failing network and the secured broker do what they say.

The three brokers prove themselves where a worker loses one of them, in `test_faults`.
"""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AclOperation, AdminClient, NewTopic

from demo.broker import Broker
from demo.kafka_wire import HOST, free_port
from tests import components
from tests.components import or_skip
from tests.faults.proxy import Direction, Proxy, properties_behind
from tests.faults.secured import (
    PLAIN,
    PLAIN_PASSWORD,
    PLAIN_USER,
    SecuredBroker,
    group,
    topic,
    transactional_id,
)

WAIT_S = 60.0
within = partial(components.within, wait_s=WAIT_S)
QUIET_S = 0.3  # So long nothing came: where nothing comes at all, any time is as good.
USER, PASSWORD = "alice", "alice-secret"


class Echo(socketserver.BaseRequestHandler):
    """Says what it heard, until its client has said all."""

    def handle(self) -> None:
        try:
            while heard := self.request.recv(65_536):
                self.request.sendall(heard)
        except ConnectionError:
            pass  # What many of these tests are about.


@pytest.fixture
def echo_port() -> Iterator[int]:
    with socketserver.ThreadingTCPServer((HOST, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    with Proxy(echo_port) as proxy:
        yield proxy


def call(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), WAIT_S)


def read(connection: socket.socket, count: int) -> bytes:
    """Read so many bytes, or fewer where they end or are cut off."""
    parts = b""
    while len(parts) < count:
        try:
            part = connection.recv(count - len(parts))
        except ConnectionResetError:
            break
        if not part:
            break
        parts += part
    return parts


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(QUIET_S)
    try:
        connection.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        connection.settimeout(WAIT_S)


def test_all_bytes_pass_in_order_and_so_does_an_orderly_end(proxy: Proxy):
    sent = os.urandom(3_000_000)
    with call(proxy) as connection:
        writer = threading.Thread(
            target=lambda: (connection.sendall(sent), connection.shutdown(socket.SHUT_WR))
        )
        writer.start()
        assert read(connection, len(sent) + 1) == sent
        writer.join()
    assert [proxy.passed(way) for way in Direction] == [len(sent)] * 2
    assert within(lambda: proxy.open_connections == 0)


def test_a_delay_is_added_on_each_way_and_goes_when_healed(proxy: Proxy):
    with call(proxy) as connection:
        proxy.delay(0.15)
        started = time.monotonic()
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        assert time.monotonic() - started >= 0.3
        proxy.delay(WAIT_S)
        connection.sendall(b"b")
        assert is_silent(connection)
        proxy.heal()
        assert read(connection, 1) == b"b"


def test_a_limit_holds_for_all_connections_together(proxy: Proxy):
    proxy.limit(20_000, Direction.TO_CLIENT)
    started = time.monotonic()
    with call(proxy) as one, call(proxy) as other:
        one.sendall(bytes(5000))
        other.sendall(bytes(5000))
        assert len(read(one, 5000) + read(other, 5000)) == 10_000
    assert time.monotonic() - started >= 0.49


def test_a_black_hole_takes_connections_and_gives_nothing_until_healed(proxy: Proxy):
    with call(proxy) as old:
        old.sendall(b"before")
        assert read(old, 6) == b"before"
        proxy.stall()
        with call(proxy) as new:
            old.sendall(b"old")
            new.sendall(b"new")
            assert is_silent(old)
            assert is_silent(new)
            assert proxy.passed(Direction.TO_BROKER) == len("before")
            proxy.heal()
            assert (read(old, 3), read(new, 3)) == (b"old", b"new")


def test_a_black_hole_may_be_of_one_way_only(proxy: Proxy):
    with call(proxy) as connection:
        proxy.stall(Direction.TO_CLIENT)
        connection.sendall(b"heard")
        assert within(lambda: proxy.passed(Direction.TO_BROKER) == len("heard"))
        assert is_silent(connection)
        proxy.heal()
        assert read(connection, 5) == b"heard"


def test_a_cut_resets_connections_and_refuses_new_ones_until_healed(proxy: Proxy):
    with call(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            call(proxy)
    proxy.heal()
    with call(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"


def test_a_cut_after_some_bytes_passes_exactly_these_and_comes_once(proxy: Proxy):
    with call(proxy) as bystander, call(proxy) as connection:
        bystander.sendall(b"a")
        assert read(bystander, 1) == b"a"
        proxy.cut_after(300, Direction.TO_CLIENT)
        connection.sendall(bytes(1000))
        assert len(read(connection, 1000)) == 300
        with pytest.raises(ConnectionResetError):
            bystander.recv(1)
    with call(proxy) as connection:
        connection.sendall(bytes(1000))
        assert len(read(connection, 1000)) == 1000


def test_a_broker_that_is_away_resets_the_connection_and_the_proxy_lives_on():
    with Proxy(port := free_port()) as proxy:
        with pytest.raises(ConnectionResetError), call(proxy) as connection:
            connection.recv(1)
        assert within(lambda: proxy.open_connections == 0)
        with socket.create_server((HOST, port)) as late, call(proxy):
            late.settimeout(WAIT_S)
            late.accept()[0].close()


@pytest.mark.parametrize("state", ["passing", "stalled", "cut", "slow"])
def test_a_closed_proxy_leaves_no_thread_and_no_socket(echo_port: int, state: str):
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with Proxy(echo_port) as proxy, call(proxy) as connection:
        connection.sendall(b"a")
        assert read(connection, 1) == b"a"
        {
            "passing": proxy.heal,
            "stalled": proxy.stall,
            "cut": proxy.cut,
            "slow": lambda: proxy.limit(1),
        }[state]()
        if state != "cut":
            connection.sendall(bytes(1000))
    proxy.close()
    # The echo's own end and thread go when it has noticed.
    assert within(
        lambda: (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)  # noqa: PTH208
    )
    with pytest.raises(ConnectionRefusedError):
        call(proxy)


def produce(properties: dict[str, str], to: str, wait_s: float = WAIT_S) -> KafkaError | None:
    """Write one record and return what became of it."""
    fates: list[KafkaError | None] = []
    heard: list[KafkaError] = []
    producer = Producer(
        {
            "message.timeout.ms": int(wait_s * 1000),
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
            **properties,
            "error_cb": heard.append,
        }
    )
    producer.produce(to, b"a", on_delivery=lambda error, _: fates.append(error))
    assert producer.flush(wait_s + 10) == 0
    needs_a_person = [e for e in heard if e.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)]
    return needs_a_person[0] if needs_a_person else fates[0]


def test_a_client_that_bootstraps_at_the_proxy_stays_on_it_and_survives_each_fault():
    with Proxy(free_port()) as proxy, or_skip(lambda: Broker(properties=properties_behind(proxy))):
        at_the_proxy = {"bootstrap.servers": proxy.address, "socket.timeout.ms": "2000"}
        admin = AdminClient({"bootstrap.servers": proxy.address})
        brokers = admin.list_topics(timeout=WAIT_S).brokers
        assert [(b.host, b.port) for b in brokers.values()] == [(HOST, proxy.port)]
        admin.create_topics([NewTopic("a", 1)])["a"].result(WAIT_S)

        assert produce(at_the_proxy, "a") is None
        for fault in (proxy.cut, proxy.stall, lambda: proxy.cut_after(50, Direction.TO_CLIENT)):
            accepted = proxy.accepted
            producer = Producer({**at_the_proxy, "log_level": 0, "acks": "all"})
            fates: list[KafkaError | None] = []
            fault()
            producer.produce("a", b"a", on_delivery=lambda e, _, fates=fates: fates.append(e))
            producer.flush(QUIET_S)
            if fault in (proxy.cut, proxy.stall):
                assert fates == []
            proxy.heal()
            assert producer.flush(WAIT_S) == 0
            assert fates == [None]
            assert proxy.accepted > accepted


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with or_skip(lambda: SecuredBroker(tmp_path_factory.mktemp("certificates"))) as secured:
        secured.broker.create_topics({"granted": 1, "other": 1})
        secured.add_user(USER, PASSWORD)
        yield secured


def first_answer(properties: dict[str, str], of: str, of_group: str) -> Message:
    """Return the first record, or what stands in its place."""
    consumer = Consumer({**properties, "group.id": of_group, "auto.offset.reset": "earliest"})
    consumer.subscribe([of])
    deadline = time.monotonic() + WAIT_S
    while (answer := consumer.poll(0.1)) is None:
        assert time.monotonic() < deadline, f"nothing of {of} in {WAIT_S:g} s"
    consumer.close()
    return answer


def test_a_user_may_do_what_was_granted_and_no_longer_than_it_is(secured: SecuredBroker):
    alice = secured.client_properties(USER, PASSWORD)
    write, read_it = topic("granted", AclOperation.WRITE), topic("granted", AclOperation.READ)
    secured.allow(USER, write, read_it, group("alices"))
    assert produce(alice, "granted") is None
    assert first_answer(alice, "granted", "alices").value() == b"a"
    refusal = first_answer(alice, "granted", "others").error()
    assert refusal is not None
    assert refusal.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    for to in ("other", "granted"):
        if to == "granted":
            secured.forbid(USER, write)
        refused = produce(alice, to)
        assert refused is not None
        assert refused.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_transaction_needs_the_right_to_its_id(secured: SecuredBroker):
    alice = {**secured.client_properties(USER, PASSWORD), "transactional.id": "alices"}
    with pytest.raises(KafkaException, match="TRANSACTIONAL_ID_AUTHORIZATION_FAILED"):
        Producer(alice).init_transactions(WAIT_S)
    secured.allow(USER, transactional_id("alices"))
    Producer(alice).init_transactions(WAIT_S)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", PLAIN])
def test_only_the_right_password_and_authority_connect(secured: SecuredBroker, mechanism: str):
    user, password = (PLAIN_USER, PLAIN_PASSWORD) if mechanism == PLAIN else (USER, PASSWORD)
    secured.allow(user, topic("other", AclOperation.DESCRIBE))

    def fate(password: str, authority: Path) -> int | None:
        properties = secured.client_properties(
            user, password, mechanism=mechanism, authority=authority
        )
        outcome = produce(properties, "other", wait_s=2)
        return outcome.code() if outcome else None

    ours, stranger = secured.certificates.authority, secured.certificates.stranger
    assert fate(password, ours) == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert fate("wrong", ours) == KafkaError._AUTHENTICATION
    assert fate(password, stranger) == KafkaError._SSL
