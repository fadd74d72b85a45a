"""The compose file and the Dockerfiles, checked by the tools that read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from worker.kafka_properties import kafka_properties

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent


def run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / name, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def config(*profiles: str, security: str = "plain") -> dict[str, Any]:
    """Return the stack as docker-compose reads it, with these profiles."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    answer = subprocess.run(
        [TOOLS / "docker-compose", *chosen, "config", "--format", "json"],
        cwd=ROOT,
        env={**os.environ, "STACK_SECURITY": security},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    read: dict[str, Any] = json.loads(answer.stdout)
    return read


ALWAYS = {
    *("kafka", "topics", "trainer", "worker", "player"),
    *("prometheus", "alertmanager", "pager", "grafana"),
}
PROFILES = [(), ("gpu",), ("secure",), ("gpu", "secure")]
ADDED = {"gpu": "worker-gpu", "secure": "certificates"}


@pytest.mark.parametrize("security", ["plain", "secure"])
@pytest.mark.parametrize("profiles", PROFILES, ids="+".join)
def test_docker_compose_accepts_the_stack_with_any_profiles(profiles, security):
    services = config(*profiles, security=security)["services"]
    assert set(services) == ALWAYS | {ADDED[profile] for profile in profiles}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return config("gpu", "secure", security="secure")["services"]


def test_no_container_may_write_to_its_system_or_gain_rights(services):
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        # The one that hands files to their readers; it has no network.
        root_ones = {"certificates"}
        assert service.get("user", "10001") != "0" or name in root_ones, name
    assert services["certificates"]["network_mode"] == "none"


def test_every_container_has_limits_and_a_bounded_log(services):
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= limits.keys(), name
        assert service["logging"]["options"]["max-size"], name


def test_every_image_has_a_tag_that_names_a_version(services):
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_ports_are_open_on_this_machine_alone(services):
    for name, service in services.items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


def test_grafana_opens_with_a_dashboard_that_is_there(services):
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana" / Path(home).relative_to("/etc/grafana")).is_file()


def test_every_container_is_told_how_long_it_may_take_to_end(services):
    for name, service in services.items():
        assert service["stop_grace_period"], name


def test_only_the_secure_broker_asks_for_tls_and_a_password():
    def listeners(security: str) -> str:
        kafka = config("secure", security=security)["services"]["kafka"]
        return str(kafka["environment"]["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"])

    assert "CLIENTS:SASL_SSL" in listeners("secure")
    assert "CLIENTS:PLAINTEXT" in listeners("plain")


def test_the_secure_stacks_clients_have_settings_that_a_worker_takes(services, tmp_path):
    password = tmp_path / "password"
    password.write_text("of a test")
    for name in ("worker", "player"):
        given = dict(services[name]["environment"])
        given["KAFKA_SASL_PASSWORD_FILE"] = str(password)
        properties, problems = kafka_properties(given)
        assert not problems, name
        assert properties.producer["security.protocol"] == "SASL_SSL"
        assert properties.consumer["sasl.password"] == "of a test"


def test_the_secrets_are_made_once_and_for_their_readers_alone(tmp_path):
    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", ROOT / "deploy/kafka/make-secrets.sh"],
            env={**os.environ, "SECRETS": str(tmp_path), "STACK_SECURITY": "secure"},
            capture_output=True,
            text=True,
            check=False,
        )

    if shutil.which("openssl") is None:
        pytest.skip("no openssl here; the stack's image has one")
    first = make()
    assert first.returncode == 0, first.stderr
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert "keeping" in make().stdout
    assert kept == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not {"ca.key", "broker.key"} & kept.keys(), "nobody needs the authority's key again"
    for secret in ("password", "broker.pem", "users.properties", "client.properties"):
        assert (tmp_path / secret).stat().st_mode & 0o777 == 0o400, secret
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", tmp_path / "ca.pem", tmp_path / "broker.pem"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_the_secrets_are_refused_where_the_broker_would_listen_without_tls(tmp_path):
    answer = subprocess.run(
        ["/bin/sh", ROOT / "deploy/kafka/make-secrets.sh"],
        env={**os.environ, "SECRETS": str(tmp_path), "STACK_SECURITY": "plain"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "Not starting" in answer.stderr
    assert not list(tmp_path.iterdir())


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
        "import sys, worker.run_command, worker.redrive_command, worker.offline; "
        "sys.exit(sorted({'torch', 'onnx', 'trainer'} & set(sys.modules)) or 0)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
