"""What runs the stack's containers in `make stack-test`: Docker, or podman in its place.

Docker builds and runs everything by itself. Where only podman is (as root), images are built with
buildah from base images that are there already (`stand_ins` makes them where no registry can be
reached), and the same `docker-compose` talks to podman's service. That needs two things
which Docker brings: a service to talk to, and somebody who runs the health checks, since podman
leaves them to systemd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / ".venv/bin/docker-compose"
SERVICE_START_S = 20.0
# Often while a container starts, as its `start_interval` asks, seldom afterwards: some are a Java.
HEALTH_INTERVAL_S = 3.0
SELDOM = 5
TRUSTED = "/etc/ssl/certs"


class NoEngine(Exception):
    """What builds and runs the stack is not all there; the text says what was seen."""


class Engine(NamedTuple):
    """How containers are built, run and killed."""

    name: str
    program: str
    environment: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """Run the engine's own program and return what it says."""
        return subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, check=True
        ).stdout

    def succeeds(self, *arguments: str) -> bool:
        """Run the engine's own program and return whether its exit code is 0."""
        return subprocess.run([self.program, *arguments], capture_output=True).returncode == 0

    def has_image(self, image: str) -> bool:
        """Return whether the image is on this machine."""
        return self.succeeds("image", "inspect", image)

    def state(self, container: str, what: str) -> str:
        """Return one field of a container's state, "ExitCode" or "Health.Status"."""
        return self.run("inspect", "--format", f"{{{{.State.{what}}}}}", container).strip()

    def kill_and_remove(self, container: str) -> None:
        """End a container as a machine that fails would: at once, and it is gone."""
        self.run("kill", container)
        self.run("rm", "--force", container)


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield an engine that answers.

    Raises:
        NoEngine: there is none.
    """
    if _answers("docker", "info"):
        yield Engine("docker", "docker", {})
        return
    if not (shutil.which("podman") and shutil.which("buildah") and os.geteuid() == 0):
        raise NoEngine(
            "no Docker engine answers, and podman and buildah are not both there for root; "
            "wanted one of the two. Nothing was started"
        )
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/podman.sock"
        service = subprocess.Popen(["podman", "system", "service", "--time=0", address])
        stopping = threading.Event()
        checks = threading.Thread(target=_run_health_checks, args=(stopping,), daemon=True)
        try:
            _wait_for(Path(folder, "podman.sock"))
            checks.start()
            yield Engine("podman", "podman", {"DOCKER_HOST": address})
        finally:
            stopping.set()
            checks.join()
            service.terminate()
            service.wait()


def build(images: Mapping[str, Path]) -> None:
    """Build images with buildah: a name and its Dockerfile each; ours is the format of Docker.

    Raises:
        NoEngine: an image that they are made from is not there.
    """
    for base in sorted({base for recipe in images.values() for base in _bases(recipe)}):
        if not _answers("podman", "image", "exists", base):
            raise NoEngine(
                f"podman has no image {base}, which ours are made from. `podman pull` gets it, or, "
                "as root on Debian, `make stack-test STAND_INS=yes` makes one like it from "
                "packages. Nothing was started"
            )
    for image, recipe in images.items():
        subprocess.run(
            [
                *("buildah", "bud", "--format", "docker", "--isolation", "chroot"),
                # The host's network and authorities: packages are fetched in the recipe's steps.
                *("--network", "host", "--volume", f"{TRUSTED}:{TRUSTED}:ro", "--pull-never"),
                *("--file", str(recipe), "--tag", image, str(ROOT)),
            ],
            check=True,
        )


class Compose(NamedTuple):
    """`docker-compose` on one project, with the variables of one run."""

    engine: Engine
    project: str
    variables: Mapping[str, str]
    profiles: Sequence[str] = ()

    def __call__(self, *arguments: str) -> str:
        """Run a command and return its output; what it says of its progress is shown."""
        chosen = [word for profile in self.profiles for word in ("--profile", profile)]
        command = [str(COMPOSE), "-f", str(ROOT / "docker-compose.yml"), "-p", self.project]
        done = subprocess.run(
            [*command, *chosen, *arguments],
            env={**os.environ, **self.engine.environment, **self.variables},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


def _bases(recipe: Path) -> list[str]:
    lines = [line.split() for line in recipe.read_text().splitlines()]
    return [words[1] for words in lines if words[:1] == ["FROM"]]


def _answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True).returncode == 0


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + SERVICE_START_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise NoEngine(f"podman's service made no {path} within {SERVICE_START_S:g} s")
        time.sleep(0.1)


def _run_health_checks(stopping: threading.Event) -> None:
    """Run the health check of every running container, again and again."""
    number = 0
    while not stopping.wait(HEALTH_INTERVAL_S):
        number += 1
        running, healthy = _containers(), _containers("--filter", "health=healthy")
        for container in running if number % SELDOM == 0 else running - healthy:
            subprocess.run(["podman", "healthcheck", "run", container], capture_output=True)


def _containers(*filters: str) -> set[str]:
    """Return the ids of the running containers that pass the filters."""
    listed = subprocess.run(["podman", "ps", "-q", *filters], capture_output=True, text=True)
    return set(listed.stdout.split())
