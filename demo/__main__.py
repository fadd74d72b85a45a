"""The whole path in front of you: `make demo`.

Train on ordinary collisions, seal, start a real worker on a real Kafka, stream ordinary and
anomalous collisions and some rubbish, watch what is flagged, and balance the books.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from confluent_kafka import KafkaException
from rich.console import Console

from demo import events
from demo.books import Books
from demo.broker import BrokerUnavailable
from demo.kafka import Kafka, Topics
from demo.player import Player
from demo.process import start_child
from demo.readers import Reader
from demo.summary import print_summary
from demo.view import Moment, RateMeter, View
from demo.worker_process import WorkerFailed, WorkerProcess
from worker.model import ModelOptions, open_model

RUN_FOLDER = Path(__file__).parent / "run"
MODEL = RUN_FOLDER / "collisions.onnx"
READ_S = 0.05
LINGER_S = 1.0
# After the last event is sent, how long without any output until we say that some are lost. A
# killed worker's partitions move on after its session timeout, which is 6 s here.
SILENCE_S = 30.0
STARTS_MAX = 5


def main() -> int:
    """Run the demonstration; return 0 if nothing was lost."""
    arguments = _arguments()
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a background job inherits none.
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            return _demonstrate(arguments, console, stack)
    except KeyboardInterrupt:
        console.print("\nStopped. No process of the demo is left.")
        return 130
    except (BrokerUnavailable, WorkerFailed) as error:
        console.print(f"[red]The demo cannot go on:[/red] {error}", soft_wrap=True)
        return 3
    except KafkaException as error:
        given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "the embedded Kafka")
        console.print(
            f"[red]The demo cannot go on:[/red] {given} answered: {error.args[0].str()}. Wanted a "
            "broker that lets us make topics; without KAFKA_BOOTSTRAP_SERVERS the demo starts one",
            soft_wrap=True,
        )
        return 3
    except subprocess.CalledProcessError as error:
        console.print("[red]The demo cannot go on:[/red] the trainer failed; see above.")
        return error.returncode


def _demonstrate(arguments: argparse.Namespace, console: Console, stack: ExitStack) -> int:
    RUN_FOLDER.mkdir(exist_ok=True)
    shipped = events.load()
    # The broker starts (and, the first time, downloads) while the model trains.
    kafka = Kafka(stack)
    console.rule("1. Train on ordinary collisions, and seal")
    _train(shipped, stack)
    console.rule("2. A real Kafka, and a worker")
    servers, topics = kafka.ready()
    contract = open_model(MODEL.read_bytes(), ModelOptions("cpu")).contract
    worker = WorkerProcess(_worker_settings(servers, topics), RUN_FOLDER / "worker.log")
    stack.callback(worker.stop)
    worker.start()
    worker.wait_until_ready()
    console.print(
        f"Kafka at {servers}. Worker {worker.pid} is ready; its metrics for as long as it runs: "
        f"http://127.0.0.1:{worker.http_port}/metrics",
        soft_wrap=True,
        highlight=False,
    )
    console.rule("3. Stream")
    total = arguments.rate * arguments.seconds
    kill_at = total // 2 if arguments.kill else None
    planned = events.plan(shipped, total, events.RUBBISH, arguments.seed)
    player = Player(servers, topics.input, planned, arguments.rate)
    stack.callback(player.stop)
    reader = Reader(servers, topics.output, topics.dead_letter)
    stack.callback(reader.close)
    books = Books()
    player.start()
    title = f"{topics.input} -> {contract.name} {contract.version} -> {topics.output}"
    with View(console, title) as view:
        _watch(player, reader, books, worker, view, kill_at)
    exit_code = worker.stop()
    console.rule("4. The books")
    return print_summary(console, books, player, worker.starts, exit_code, contract)


def _train(shipped: events.Shipped, stack: ExitStack) -> None:
    """Train and seal by the trainer's own command line, before everybody's eyes.

    Raises:
        CalledProcessError: it failed, and has said why.
    """
    training, labelled = RUN_FOLDER / "ordinary.npz", RUN_FOLDER / "labelled.npz"
    events.write_training_file(shipped, training)
    events.write_labelled_file(shipped, labelled)
    events.write_sample(shipped, RUN_FOLDER / "sample.jsonl")
    command = [sys.executable, "-m", "trainer", "fit", str(training), "--out", str(MODEL)]
    trainer = start_child(command)
    stack.callback(trainer.kill)
    if code := trainer.wait():
        raise subprocess.CalledProcessError(code, command)


def _worker_settings(servers: str, topics: Topics) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        # A worker that is killed keeps its place in the group and has it back at once.
        "KAFKA_CONSUMER_GROUP_INSTANCE_ID": "odradek-demo-worker",
        "ODRADEK_MODEL": str(MODEL),
        "ODRADEK_INPUT_TOPIC": topics.input,
        "ODRADEK_OUTPUT_TOPIC": topics.output,
        "ODRADEK_DEAD_LETTER_TOPIC": topics.dead_letter,
        "ODRADEK_HTTP_HOST": "127.0.0.1",
        "ODRADEK_LOG_FORMAT": "text",
    }


def _watch(
    player: Player,
    reader: Reader,
    books: Books,
    worker: WorkerProcess,
    view: View,
    kill_at: int | None,
) -> None:
    """Show what comes out until all has, or nothing has for too long; restart a dead worker.

    After `kill_at` outputs, if that is a number, the worker is killed.
    """
    meter = RateMeter()
    last_output = time.monotonic()
    while True:
        if reader.read(books, READ_S):
            last_output = time.monotonic()
        if kill_at is not None and len(books.verdicts) >= kill_at:
            kill_at = None
            worker.kill()
        if not worker.running and worker.starts < STARTS_MAX:
            worker.start()
        now = time.monotonic()
        rate = meter.rate(len(books.verdicts), now)
        word = f"worker {worker.pid}" + (f" (start {worker.starts})" if worker.starts > 1 else "")
        view.show(books, Moment(player.played, rate, word))
        if player.is_alive():
            continue
        if len(books.verdicts) >= len(player.sent) or now - last_output > SILENCE_S:
            break
    while reader.read(books, LINGER_S):  # Repeats may still be under way.
        pass
    view.show(books, Moment(player.played, 0.0, "all sent"))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--rate", type=int, default=3000, help="events a second (default 3000)")
    parser.add_argument("--seconds", type=int, default=20, help="how long to stream (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the mixture of events")
    parser.add_argument(
        "--kill", action="store_true", help="kill -9 the worker half-way, and start another"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
