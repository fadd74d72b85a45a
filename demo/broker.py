"""The embedded broker: the real Apache Kafka, started from Python alone.

This module owns a broker's process, folder and ports, from its start to its end.

1. No broker outlives its program: it is a child as `demo.process` starts them.
2. A started broker is ours: our process says so in its own log, and answers on its port.
3. Nothing listens but on 127.0.0.1, and nothing is written outside its folder and the cache.

It knows nothing of workers or events. POSIX only: signals are its tools.
"""

import argparse
import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from demo.kafka_files import KAFKA_VERSION, Kafka, install, locked, server_properties
from demo.kafka_wire import HOST, BrokerUnavailable, free_port, has_coordinators
from demo.process import start_child

__all__ = ["KAFKA_VERSION", "Broker", "BrokerUnavailable", "free_port", "install", "warm"]

STARTED = b"Kafka Server started"  # What KafkaRaftServer logs once every listener is bound.
PORT_TAKEN = "Address already in use"  # What Java says of a port, in its own words.
START_ATTEMPTS_MAX = 3
POLL_S = 0.02


class Broker:
    """One Kafka broker in a process of its own, for as long as the `with` block.

    Without a folder it gets a temporary one, removed at the end with everything in it (a program
    that is killed leaves the folder, not the broker). Properties are Kafka's own and go on top of
    PROPERTIES (`server_properties` says how listeners are added); Java options go on top of
    JAVA_OPTIONS, for a broker that is to be measured rather than small.
    """

    def __init__(
        self,
        folder: Path | None = None,
        properties: Mapping[str, str | int] | None = None,
        *,
        port: int | None = None,
        java_options: Sequence[str] = (),
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 15.0,
    ) -> None:
        temporary = Path(tempfile.gettempdir()) / f"odradek-broker-{uuid4().hex[:12]}"
        self.folder = (folder or temporary).resolve()
        self.properties = dict(properties or {})
        self.ports = (port or free_port(), free_port())  # Of clients, of the controller.
        self._must_keep_ports = port is not None
        self._java_options = tuple(java_options)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._is_temporary = folder is None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the broker and return once it answers: on the same data and ports as before.

        Blocks for start_timeout_s at most, a first download not counted. Does nothing where the
        broker runs. Raises BrokerUnavailable.
        """
        if self._process is not None and self._process.poll() is None:
            return
        kafka = install()
        if not (self.folder / "data").exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copytree(kafka.folder / "formatted", self.folder / "data")
        for attempts_left in reversed(range(START_ATTEMPTS_MAX)):
            self._process = self._launch(kafka)
            if self._comes_up(self._process):
                self._must_keep_ports = True
                return
            ended = self._process.poll()
            self.kill()
            if self._must_keep_ports or PORT_TAKEN not in self.log_tail() or not attempts_left:
                raise self._not_started(ended)
            # Somebody was quicker to a port that was free when it was chosen.
            self.ports = (free_port(), free_port())

    def stop(self) -> None:
        """Ask the broker to end, wait for stop_timeout_s at most, then kill it. The data stays."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(self._stop_timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the broker as a crash would, in whatever state it is. The data stays."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        """Stop the broker if it runs, and start it on the same data and ports."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker: its connections stay open and nothing answers, until `resume`."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on from where it was."""
        self._started().send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Block until the broker ends, by whatever hand, and return its exit status."""
        return self._started().wait()

    def close(self) -> None:
        """End the broker for good, without a flush where the folder is temporary and goes too."""
        if self._is_temporary:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self.stop()
        atexit.unregister(self.close)

    def create_topics(
        self,
        partitions: Mapping[str, int],
        config: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
    ) -> None:
        """Create topics, each with its number of partitions, and return once clients see them.

        Raises KafkaException where Kafka refuses one, BrokerUnavailable where one stays unseen.
        """
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        wanted = [NewTopic(name, n, config=dict(config or {})) for name, n in partitions.items()]
        for created in admin.create_topics(wanted, request_timeout=timeout_s).values():
            created.result()
        deadline_s = time.monotonic() + timeout_s
        while unseen := _without_leaders(admin, partitions, timeout_s):
            if time.monotonic() > deadline_s:
                raise BrokerUnavailable(
                    f"Topics {unseen} were created, and no client sees them after {timeout_s} s; "
                    f"wanted a leader for each partition. The broker's log ends:\n{self.log_tail()}"
                )
            time.sleep(POLL_S)

    @property
    def bootstrap_servers(self) -> str:
        """Return the address for clients, the same for the life of this object once started."""
        return f"{HOST}:{self.ports[0]}"

    @property
    def pid(self) -> int:
        """Return the broker's process id, or its last one where it has ended."""
        return self._started().pid

    def log_tail(self, lines: int = 20) -> str:
        """Return the last lines that the broker has logged since it was last launched."""
        return "\n".join(self._log().decode(errors="replace").splitlines()[-lines:])

    def _log(self) -> bytes:
        with (self.folder / "broker.log").open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("The broker has no process yet, wanted a started one: call start().")
        return self._process

    def _launch(self, kafka: Kafka) -> subprocess.Popen[bytes]:
        """Start Java on this folder, in a session of its own: a terminal's Ctrl-C is not for it."""
        settings = self.folder / "server.properties"
        settings.write_text(server_properties(self.ports, self.folder / "data", self.properties))
        command = kafka.server_command(settings, self._java_options)
        with (self.folder / "broker.log").open("ab") as log:
            self._log_start = log.tell()
            atexit.register(self.close)
            return start_child(
                command, new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _comes_up(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until this very process says that it has started, and serves its clients."""
        deadline_s = time.monotonic() + self._start_timeout_s
        while process.poll() is None and time.monotonic() < deadline_s:
            if STARTED in self._log() and has_coordinators(self.ports[0]):
                return True
            time.sleep(POLL_S)
        return False

    def _not_started(self, exit_status: int | None) -> BrokerUnavailable:
        late = f"did not answer within {self._start_timeout_s} s"
        return BrokerUnavailable(
            f"Kafka {late if exit_status is None else f'ended with status {exit_status}'}, wanted "
            f"an answer at {self.bootstrap_servers}. Nothing of it runs any more, and its log "
            f"ends:\n{self.log_tail()}"
        )


def _without_leaders(
    admin: AdminClient, partitions: Mapping[str, int], timeout_s: float
) -> list[str]:
    """Return the topics of which a client does not see every partition with its leader yet."""
    seen = {
        name: sum(partition.leader >= 0 for partition in topic.partitions.values())
        for name, topic in admin.list_topics(timeout=timeout_s).topics.items()
    }
    return [name for name, count in partitions.items() if seen.get(name, 0) < count]


def warm() -> Path:
    """Make the class cache unless it is there, and return its path.

    It takes 9 s and 62 MiB, and a start then takes 1.0 s instead of 2.0 s: worth it for a suite of
    tests, not for one demo. So a start uses it where it is there, and never makes it.
    """
    kafka = install()
    with locked(kafka.folder):
        if not kafka.class_cache.exists():
            unfinished = kafka.class_cache.with_suffix(".unfinished")
            options = [f"-XX:AOTCacheOutput={unfinished}"]
            # Java writes the cache as it ends.
            with Broker(java_options=options, stop_timeout_s=120.0) as broker:
                broker.create_topics({"warm": 1})
                broker.stop()
                if not unfinished.exists():
                    raise BrokerUnavailable(
                        f"Java ended without a class cache, wanted {unfinished}. Brokers start "
                        f"without one, more slowly. The log ends:\n{broker.log_tail()}"
                    )
            unfinished.rename(kafka.class_cache)
    return kafka.class_cache


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one broker in the foreground until Ctrl-C or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.broker", description=main.__doc__)
    parser.add_argument(
        "--folder", type=Path, help="keep the data here; default: a temporary folder"
    )
    parser.add_argument("--port", type=int, help="listen here; default: any free port")
    parser.add_argument("--topics", nargs="*", default=[], help="make these topics")
    parser.add_argument("--warm", action="store_true", help="only make the class cache; see warm()")
    chosen = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job inherits none.
        signal.signal(number, signal.default_int_handler)
    try:
        if chosen.warm:
            print(f"Later brokers start with the class cache {warm()}")
            return 0
        with Broker(chosen.folder, port=chosen.port) as broker:
            if chosen.topics:
                broker.create_topics(dict.fromkeys(chosen.topics, 4))
            print(f"Kafka {KAFKA_VERSION} answers; its data and log are in {broker.folder}")
            print(f"export KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap_servers}", flush=True)
            print(f"Kafka ended, status {broker.wait()}:\n{broker.log_tail()}", file=sys.stderr)
            return 3
    except KeyboardInterrupt:
        return 0
    except BrokerUnavailable as error:
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
