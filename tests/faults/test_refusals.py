"""What a worker says and does when Kafka refuses it: a stop that names the cause, never silence.

librdkafka tells most refusals on the side, or not at all, and tries for ever. So every case here is
a real worker in a process of its own, at a real broker that asks who it is.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka.admin import AclOperation

from demo.books import Books
from demo.worker_process import WorkerProcess
from tests.builders import a_sealed_model, an_event
from tests.components import or_skip
from tests.end_to_end.stream import PARTITIONS, WAIT_S, Stream, ask, ends, running
from tests.faults.secured import (
    PLAIN,
    PLAIN_USER,
    SCRAM,
    Grant,
    SecuredBroker,
    as_environment,
    group,
    topic,
)

pytestmark = pytest.mark.usefixtures("bare_environment")

PASSWORD = "right-secret"  # noqa: S105  # Of a user who lives as long as the test.
WRONG_PASSWORD = "wrong-secret"  # noqa: S105
START_TIMEOUT_S = 6.0
# To start Python and load the model on a busy machine, and to end.
MARGIN_S = 20.0
EVENTS = 300
TOPICS = ("input", "output", "dead letters")
# However it is put, the reader must learn that a right is missing.
A_RIGHT_IS_MISSING = r"(?i)authori[sz]|may not|\brights?\b|permission|\bACL"


class Scene(NamedTuple):
    """A user of the secured broker, topics, and the rights that a worker there needs."""

    secured: SecuredBroker
    stream: Stream
    model: Path
    folder: Path
    user: str

    @property
    def group(self) -> str:
        return f"odradek-{self.stream.input}"

    @property
    def needed(self) -> dict[str, Grant]:
        return {
            "input": topic(self.stream.input, AclOperation.READ),
            "output": topic(self.stream.output, AclOperation.WRITE),
            "dead letters": topic(self.stream.dead_letter, AclOperation.WRITE),
            "group": group(self.group),
        }

    def name(self, what: str) -> str:
        return self.needed[what].name

    def grant_all_but(self, *missing: str) -> None:
        granted = (grant for what, grant in self.needed.items() if what not in missing)
        self.secured.allow(self.user, *granted)

    def worker(self, **settings: str) -> WorkerProcess:
        """A worker of this user with the right password, unless told otherwise."""
        properties = self.secured.client_properties(self.user, PASSWORD)
        return self.stream.worker(
            self.model,
            self.folder,
            **{
                **as_environment(properties),
                "ODRADEK_START_TIMEOUT_S": f"{START_TIMEOUT_S:g}",
                **settings,
            },
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with or_skip(lambda: SecuredBroker(tmp_path_factory.mktemp("certificates"))) as secured:
        yield secured


@pytest.fixture
def scene(secured: SecuredBroker, tmp_path: Path) -> Scene:
    run = uuid4().hex[:8]
    stream = Stream(
        secured.broker.bootstrap_servers, f"events-{run}", f"scores-{run}", f"letters-{run}"
    )
    names = (stream.input, stream.output, stream.dead_letter)
    secured.broker.create_topics(dict.fromkeys(names, PARTITIONS))
    secured.add_user(f"user-{run}", PASSWORD)
    model = tmp_path / "model.onnx"
    model.write_bytes(a_sealed_model())
    return Scene(secured, stream, model, tmp_path, f"user-{run}")


def why_stopped(worker: WorkerProcess) -> str:
    """Wait until a worker stops by itself for the outside world's fault; return what it says."""
    if not worker.starts:
        worker.start()
    started = time.monotonic()
    try:
        while worker.running and time.monotonic() < started + START_TIMEOUT_S + MARGIN_S:
            time.sleep(0.02)
        assert not worker.running, (
            f"runs on after {START_TIMEOUT_S + MARGIN_S:g} s: {log_of(worker)}"
        )
        code = worker.wait()
    finally:
        worker.kill()
    assert code == 3, f"{code}: {log_of(worker)}"
    for secret in (PASSWORD, WRONG_PASSWORD):
        assert secret not in log_of(worker)
    return last_words(worker)


def log_of(worker: WorkerProcess) -> str:
    return worker.log.read_text(errors="replace")


def last_words(worker: WorkerProcess) -> str:
    """Return the one message that the program ends with; what librdkafka logged is no answer."""
    before, said, message = log_of(worker).rpartition("\nerror: ")
    assert said, f"ended without an error message: {before}{message}"
    return message


@pytest.mark.parametrize("mechanism", [SCRAM, PLAIN])
def test_a_wrong_password_stops_the_worker(scene: Scene, mechanism: str):
    user = PLAIN_USER if mechanism == PLAIN else scene.user
    wrong = scene.secured.client_properties(user, WRONG_PASSWORD, mechanism=mechanism)
    reason = why_stopped(scene.worker(**as_environment(wrong)))
    assert re.search("(?i)authentication failed", reason)
    assert "KAFKA_SASL" in reason


def test_an_unknown_user_stops_the_worker(scene: Scene):
    unknown = scene.secured.client_properties("nobody", PASSWORD)
    reason = why_stopped(scene.worker(**as_environment(unknown)))
    assert re.search("(?i)authentication failed", reason)
    assert "KAFKA_SASL" in reason


def test_an_untrusted_certificate_stops_the_worker(scene: Scene):
    reason = why_stopped(
        scene.worker(KAFKA_SSL_CA_LOCATION=str(scene.secured.certificates.stranger))
    )
    assert re.search("(?i)certificate verify failed", reason)
    assert "KAFKA_SSL" in reason


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_another_protocol_than_the_brokers_stops_the_worker_with_what_to_check(
    scene: Scene, protocol: str
):
    """Neither side can tell what is wrong: the connection ends, or is never answered."""
    settings = {"KAFKA_SECURITY_PROTOCOL": protocol, "ODRADEK_START_TIMEOUT_S": "3"}
    reason = why_stopped(scene.worker(**settings))
    assert scene.secured.address in reason
    assert "KAFKA_SECURITY_PROTOCOL" in reason


@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("missing", TOPICS)
def test_a_right_to_a_topic_that_is_missing_at_start_stops_the_worker(
    scene: Scene, missing: str, seen: bool
):
    """A topic that may not even be described is, to its user, not there."""
    scene.grant_all_but(missing)
    if seen:
        scene.secured.allow(scene.user, topic(scene.name(missing), AclOperation.DESCRIBE))
    reason = why_stopped(scene.worker())
    named = [what for what in TOPICS if scene.name(what) in reason.replace(scene.group, "")]
    assert named == [missing], reason
    assert re.search(A_RIGHT_IS_MISSING, reason)


def test_no_right_to_the_group_at_start_stops_the_worker(scene: Scene):
    scene.grant_all_but("group")
    reason = why_stopped(scene.worker())
    assert scene.group in reason
    assert re.search(A_RIGHT_IS_MISSING, reason)


def test_no_right_to_the_transactional_id_stops_the_worker(scene: Scene):
    scene.grant_all_but()
    reason = why_stopped(scene.worker(ODRADEK_DELIVERY="exactly-once"))
    assert re.search(rf"(?i)transactional.id\W.*{scene.group}", reason)
    assert re.search(A_RIGHT_IS_MISSING, reason)


@pytest.mark.parametrize("taken", ["input", "group"])
def test_a_right_to_read_that_is_taken_away_stops_the_worker(scene: Scene, taken: str):
    scene.grant_all_but()
    first = scene.stream.send(events("first", rubbish=False))
    with running(scene.worker()) as worker:
        scene.stream.read(Books(), all_of(first))
        scene.secured.forbid(scene.user, scene.needed[taken])
        sent = scene.stream.send(events("second", rubbish=False))
        reason = why_stopped(worker)
        assert scene.name(taken) in reason
        assert re.search(A_RIGHT_IS_MISSING, reason)
    scene.secured.allow(scene.user, scene.needed[taken])
    with running(scene.worker()) as worker:
        scene.stream.read(books := Books(), all_of(first | sent))
        assert worker.stop() == 0
    assert books.verdicts.keys() == first | sent


def events(name: str, *, rubbish: bool = True) -> list[bytes | None]:
    rng = random.Random(7)
    values: list[bytes | None] = [
        an_event(*(rng.gauss(0, 1) for _ in range(3)), event_id=f"{name}-{number}")
        for number in range(EVENTS)
    ]
    if rubbish:
        values[::10] = [b"rubbish"] * len(values[::10])
    return values


def all_of(positions: set[tuple[int, int]]) -> Callable[[Books], bool]:
    return lambda books: not positions - books.verdicts.keys()


def wait_until(condition: Callable[[], bool], worker: WorkerProcess, what: str) -> None:
    """Wait for something that a worker comes to while it runs."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert worker.running, f"ended, wanted {what}: {log_of(worker)}"
        assert time.monotonic() < deadline, f"not {what}: {ask(worker, '/readyz')} {log_of(worker)}"
        time.sleep(0.05)


@pytest.mark.parametrize("taken", ["output", "dead letters"])
def test_a_right_to_write_that_is_taken_away_is_waited_for(scene: Scene, taken: str):
    """The worker is held: alive, not ready, and says why; then it goes on where it was."""
    scene.grant_all_but()
    first = scene.stream.send(events("first"))
    with running(scene.worker()) as worker:
        scene.stream.read(Books(), all_of(first))
        wait_until(lambda: scene.stream.committed() == ends(first), worker, "committed")

        scene.secured.forbid(scene.user, scene.needed[taken])
        sent = first | scene.stream.send(events("second"))

        def is_held() -> bool:
            status, why = ask(worker, "/readyz")
            return status == 503 and scene.name(taken) in why

        wait_until(is_held, worker, f"held for {scene.name(taken)}")
        assert ask(worker, "/healthz")[0] == 200
        # Turns that held nothing of the refused kind may have passed; none without its outputs.
        committed = scene.stream.committed()
        scene.stream.read(books := Books(), all_of(first))
        assert {(p, o) for p, end in committed.items() for o in range(end)} <= books.verdicts.keys()
        assert not all_of(sent)(books)

        scene.secured.allow(scene.user, scene.needed[taken])
        scene.stream.read(books := Books(), all_of(sent))
        wait_until(lambda: ask(worker, "/readyz")[0] == 200, worker, "ready again")
        assert worker.stop() == 0, log_of(worker)
    assert books.verdicts.keys() == sent
    assert books.repeats == 0
    assert scene.stream.committed() == ends(sent)
