"""`odradek-worker health`: asks the worker's own port, says what it is told, and is quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from schemas.errors import SettingsError
from worker import health_command
from worker.health import Health
from worker.health_command import health
from worker.http import serve_http
from worker.metrics import Metrics
from worker.settings import WorkerSettings


@pytest.fixture
def worker(bare_environment) -> Iterator[Health]:
    """A worker's health, served on the port that the environment names."""
    state = Health(60.0, last_beat=0.0, joined=True)
    server = serve_http("127.0.0.1", 0, Metrics().registry, state, lambda: 1.0)
    bare_environment.setenv("ODRADEK_HTTP_PORT", str(server.server_port))
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("worker")
def test_a_worker_that_is_well_is_exit_0(capsys):
    assert health([]) == 0
    assert health(["--ready"]) == 0
    assert capsys.readouterr().out == "ok\nok\n"


def test_one_that_drains_is_alive_and_not_ready_and_it_says_why(worker, capsys):
    worker.draining = True
    assert health([]) == 0
    assert health(["--ready"]) == 1
    assert capsys.readouterr().err == "draining: it was told to stop\n"


def test_a_stuck_one_is_exit_1(worker, capsys):
    worker.last_beat = -100.0
    assert health([]) == 1
    assert "no turn or poll ended for 101 s" in capsys.readouterr().err


@pytest.mark.usefixtures("bare_environment")
def test_where_nobody_answers_it_is_exit_1(capsys):
    assert health(["--http-port", "1", "--http-host=127.0.0.1"]) == 1
    assert "/healthz on 127.0.0.1 port 1 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "70000", "x", "-1", "\u0661"])
def test_a_port_that_is_none_is_the_users_mistake(port, bare_environment):
    bare_environment.setenv("ODRADEK_HTTP_PORT", port)
    with pytest.raises(SettingsError, match="the port to ask"):
        health([])


@pytest.mark.parametrize("host", ["a..b", "a b", "x" * 70])
def test_a_host_that_is_none_is_the_users_mistake(host):
    with pytest.raises(SettingsError, match=f"the host to ask is '{host}' .*Nothing was asked"):
        health([f"--http-host={host}"])


def test_an_unknown_argument_is_the_users_mistake():
    with pytest.raises(SettingsError, match="'--redy' is no argument of health"):
        health(["--redy"])


def test_its_defaults_are_the_workers():
    for name, value in health_command.DEFAULTS.items():
        assert value == str(WorkerSettings.model_fields[name].default)


def test_it_imports_nothing_that_takes_time():
    code = "import sys, worker.__main__, worker.health_command as h; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"numpy", "onnxruntime", "confluent_kafka", "pydantic", "msgspec", "prometheus_client"}
    assert not heavy & {*loaded}
