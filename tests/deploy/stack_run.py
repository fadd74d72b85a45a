"""The stack for real: `make stack-test`, or `python -m tests.deploy.stack_run`.

Builds both images, brings everything up from docker-compose.yml with two workers, waits until
events are scored and scraped and all is healthy, looks at the rights of every process, kills one
worker's container, sees the alert at the pager and then the recovery, trains no second time, stops
in order with every event settled, and takes all down. Ends with exit code 0 only if each step was
seen, within its time. It is no part of `make test`: it takes minutes and needs an engine.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.deploy import stand_ins
from tests.deploy.engine import ROOT, Compose, Engine, NoEngine, build, engine
from tests.deploy.stack import PROJECT, WORKERS, NotSeen, Stack, a_stack

IMAGES = {
    "odradek-worker:0.1.0": ROOT / "deploy/worker.Dockerfile",
    "odradek-trainer:0.1.0": ROOT / "deploy/trainer.Dockerfile",
}
SETTLED = Path(__file__).with_name("settled.py")
LASTING = ("kafka", "worker", "player", "prometheus", "alertmanager", "pager")
ALERT = "OdradekWorkersMissing"
UP = 'count(up{job="odradek-worker"} == 1)'
SCORED = 'sum(odradek_records_total{outcome!="dead_letter"})'
FLAGGED = 'sum(odradek_records_total{outcome="anomalous"})'
# Of each partition by the worker that has it.
LAGS = "count(odradek_lag_records)"
LAG = "sum(odradek_lag_records)"
PARTITIONS = 4
SCORED_MIN = 2_000
LAG_MAX = 200  # A second of events.
STEP_S = 180.0
# A Java that ends on SIGTERM, as it should, says so by this one.
EXIT_CODES = {"kafka": {0, 143}}


def scenario(stack: Stack) -> None:
    """Take the stack through its paces."""
    come_up(stack)
    ask_for_health(stack)
    look_at_rights(stack)
    lose_a_worker(stack)
    come_back(stack)
    stop_in_order(stack)


def come_up(stack: Stack) -> None:
    """Bring everything up, and see events scored, flagged and scraped, without an alert."""
    scale = ("--scale", f"worker={WORKERS}")
    stack.compose("up", "--detach", "--no-build", *scale, *stack.services)
    stack.say("`up` has returned: the broker is healthy, the topics are made, the model is trained")
    stack.wait(f"{WORKERS} workers are scraped", lambda: stack.query(UP) == WORKERS, STEP_S)
    stack.wait(
        f"more than {SCORED_MIN:,} events are scored, by Prometheus' count",
        lambda: stack.query(SCORED) > SCORED_MIN,
        STEP_S,
    )
    stack.wait("anomalous events are among them", lambda: stack.query(FLAGGED), STEP_S)
    stack.wait("no alert is active", lambda: stack.alerts() == set(), STEP_S)
    if pages := stack.paged("FIRING"):
        raise NotSeen(f"a pager that was told nothing; seen: {pages}")


def ask_for_health(stack: Stack) -> None:
    """See both workers healthy by their image's own check, and ready by the same command."""
    workers = [stack.container("worker", number + 1) for number in range(WORKERS)]
    stack.wait(
        "the workers' containers are healthy, by `odradek-worker health`",
        lambda: all(stack.engine.state(one, "Health.Status") == "healthy" for one in workers),
        STEP_S,
    )
    for worker in workers:
        said = stack.engine.run("exec", worker, "odradek-worker", "health", "--ready").strip()
        stack.say(f"{worker}: `odradek-worker health --ready` says: {said}")


def look_at_rights(stack: Stack) -> None:
    """See that no process is root, has a capability or may gain one, or writes to its system."""
    for service in LASTING:
        container = stack.container(service)
        status = stack.engine.run("exec", container, "cat", "/proc/1/status").splitlines()
        told = {name: value.split() for name, _, value in (line.partition(":") for line in status)}
        is_root, capabilities = "0" in told["Uid"], int(told["CapBnd"][0], 16)
        if is_root or capabilities or told["NoNewPrivs"] != ["1"]:
            raise NotSeen(f"a {service} without rights; seen: {status}")
        if stack.engine.succeeds("exec", container, "touch", "/written"):
            raise NotSeen(f"a {service} that cannot write to its system; /written is there now")
    stack.say(f"not root, no capabilities, a read-only system: {', '.join(LASTING)}")


def lose_a_worker(stack: Stack) -> None:
    """Kill one of the workers: the alert comes, and the other one scores on."""
    victim = stack.container("worker", WORKERS)
    stack.engine.kill_and_remove(victim)
    stack.say(f"killed the container {victim}, kill -9, and removed it")
    stack.wait(
        "the alert is active in Alertmanager", lambda: ALERT in (stack.alerts() or ()), STEP_S
    )
    page = stack.wait("the pager was told", lambda: stack.paged(f"FIRING {ALERT} "), STEP_S)
    stack.say(f"  it reads: {page[0]}")
    before = stack.query(SCORED)
    stack.wait("the worker that is left scores on", lambda: stack.query(SCORED) > before, STEP_S)


def come_back(stack: Stack) -> None:
    """Bring up what is missing: no second model is trained, the alert ends, the lag as well."""
    scale = ("--scale", f"worker={WORKERS}")
    # Nothing else is touched: podman's answers make compose think that everything has changed.
    stack.compose("up", "--detach", "--no-build", "--no-recreate", *scale, *stack.services)
    stack.say("`up` again: the missing worker is started")
    said = stack.compose("logs", "trainer")
    if "nothing to train" not in said:
        raise NotSeen(f"a second training that was left out; the trainer's log: {said}")
    stack.say("the trainer found its model in the volume, and trained no second time")
    stack.wait(f"{WORKERS} workers are scraped", lambda: stack.query(UP) == WORKERS, STEP_S)
    page = stack.wait(
        "the pager was told that it is over", lambda: stack.paged(f"RESOLVED {ALERT} "), STEP_S
    )
    stack.say(f"  it reads: {page[0]}")
    stack.wait(
        f"nothing is left behind: the lag is below {LAG_MAX} events",
        lambda: stack.query(LAGS) == PARTITIONS and stack.query(LAG) < LAG_MAX,
        STEP_S,
    )


def stop_in_order(stack: Stack) -> None:
    """Stop while events come: each ends by itself, and what is committed is what was told."""
    compose = stack.compose
    compose("stop", "player", "worker")
    ask = ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "python", "player", "-c")
    committed, told = map(int, compose(*ask, SETTLED.read_text()).split())
    if not 0 < committed == told:
        raise NotSeen(f"as many events told of as committed; seen: {told:,} and {committed:,}")
    stack.say(
        f"stopped while events came: {committed:,} events are committed, and the output topics "
        "tell of the same"
    )
    compose("stop")
    workers = [("worker", number + 1) for number in range(WORKERS)]
    for service, number in [*((one, 1) for one in LASTING if one != "worker"), *workers]:
        code = int(stack.engine.state(stack.container(service, number), "ExitCode"))
        if code not in EXIT_CODES.get(service, {0}):
            raise NotSeen(f"{service} {number} ended in order; seen: exit code {code}")
    stack.say("the rest is stopped; every container ended by itself, within its time")


def main() -> int:
    """Run the scenario and return 0 if all of it was seen, 1 if not, 3 without what it takes."""
    arguments = _arguments()
    try:
        with engine() as started:
            if arguments.stand_ins:
                stand_ins.make(started)
            if not arguments.no_build:
                _build(started)
            with a_stack(started, secure=arguments.secure, keep=arguments.keep) as stack:
                _seen(stack)
            stack.say("all is taken down, and nothing is left; everything was seen")
            return 0
    except NoEngine as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except NotSeen as error:
        print(f"not seen: {error}", file=sys.stderr)
        return 1


def _seen(stack: Stack) -> None:
    try:
        scenario(stack)
    except Exception:
        print(stack.compose("logs", "--tail", "40"), file=sys.stderr)
        raise


def _build(started: Engine) -> None:
    began_s = time.monotonic()
    if started.name == "podman":
        build(IMAGES)
    else:
        Compose(started, PROJECT, {})("build")
    print(f"both images are built, in {time.monotonic() - began_s:.0f} s", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.stack_run", description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="use the images that are there")
    parser.add_argument(
        "--stand-ins", action="store_true", help="make base images that are not there (podman)"
    )
    parser.add_argument("--secure", action="store_true", help="clients by TLS and with a password")
    parser.add_argument("--keep", action="store_true", help="leave the stack up at the end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
