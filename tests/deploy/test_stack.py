"""The compose file and the Dockerfiles, checked by the tools that read them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]], ids=["cpu", "gpu"])
def test_docker_compose_accepts_the_stack(profile: list[str]):
    answer = run_tool("docker-compose", "-f", "docker-compose.yml", *profile, "config", "--quiet")
    assert answer.returncode == 0, answer.stderr


def test_the_gpu_worker_is_only_in_the_gpu_profile():
    services = ["docker-compose", "-f", "docker-compose.yml"]
    plain = run_tool(*services, "config", "--services").stdout.split()
    gpu = run_tool(*services, "--profile", "gpu", "config", "--services").stdout.split()
    assert {"kafka", "topics", "trainer", "worker", "prometheus", "grafana"} == set(plain)
    assert set(gpu) - set(plain) == {"worker-gpu"}


@pytest.mark.parametrize("image", ["worker", "trainer"])
def test_hadolint_has_nothing_against_the_dockerfile(image: str):
    answer = run_tool("hadolint", f"deploy/{image}.Dockerfile")
    assert answer.returncode == 0, answer.stdout


def requirements(distribution: str, extra: str = "") -> set[str]:
    """The names of all that an installed distribution brings, and what those bring in turn."""
    found: set[str] = set()
    waiting = [(distribution, extra)]
    while waiting:
        name, wanted = waiting.pop()
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.name in found or not (
                needed.marker is None or needed.marker.evaluate({"extra": wanted})
            ):
                continue
            found.add(needed.name)
            waiting += [(needed.name, each) for each in needed.extras or {""}]
    return found


def test_the_worker_brings_no_torch_along():
    assert {"onnxruntime-gpu", "confluent-kafka"} <= requirements("odradek", "worker")
    assert "torch" not in requirements("odradek", "worker")
    assert "torch" in requirements("odradek", "trainer")


def test_a_worker_process_never_loads_torch():
    code = (
        "import sys, worker.__main__; "
        "sys.exit(sorted({'torch', 'onnx', 'trainer'} & set(sys.modules)) or 0)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
