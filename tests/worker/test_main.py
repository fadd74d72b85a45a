"""The program from outside: exit codes 0, 1, 2 and 3, one message, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.builders import a_sealed_model, an_event


def worker(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ODRADEK_", "KAFKA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "worker", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**clean, **environment},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model())
    return path


def test_help_tells_the_commands():
    done = worker("--help")
    assert done.returncode == 0
    for command in ("run", "redrive", "check", "score", "health"):
        assert f"odradek-worker {command}" in done.stdout


def test_without_a_command_it_says_what_there_is():
    done = worker()
    assert done.returncode == 2
    assert "odradek-worker run" in done.stdout


def test_an_unknown_command_is_the_users_mistake():
    done = worker("rnu")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 'rnu' is not a command; did you mean 'run'?; wanted one of run, redrive, check, "
        "score, health, top\n"
    )


@pytest.mark.parametrize("command", ["run", "redrive", "check", "score", "health"])
def test_each_command_has_help(command):
    done = worker(command, "--help")
    assert done.returncode == 0
    assert f"odradek-worker {command}" in done.stdout


def test_a_good_model_is_exit_0_and_a_bad_one_exit_1(model_path):
    assert worker("check", model_path).returncode == 0
    model_path.write_bytes(model_path.read_bytes()[:-1])
    assert worker("check", model_path).returncode == 1


def test_scores_go_to_stdout_alone(model_path, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(an_event(1, 2, 3) + b"\n" + b"rubbish\n")
    done = worker("score", model_path, path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith('{"schema_version":1,')
    assert "dead letter: " in done.stderr


def test_a_reader_that_leaves_early_is_no_error(model_path, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes((an_event(1, 2, 3) + b"\n") * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "score", str(model_path), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0
    assert not error


def test_settings_that_are_wrong_are_exit_2_and_all_of_them_told():
    done = worker("run", ODRADEK_BATCH_MAX="none")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the settings cannot be used; not starting:\n  - ")
    for told in ("ODRADEK_MODEL", "ODRADEK_BATCH_MAX", "KAFKA_BOOTSTRAP_SERVERS"):
        assert told in done.stderr


def test_a_model_that_is_absent_is_exit_2(tmp_path):
    done = worker(
        "run",
        ODRADEK_MODEL=str(tmp_path / "absent.onnx"),
        ODRADEK_HTTP_PORT="0",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
    )
    assert done.returncode == 2
    assert "absent.onnx cannot be read (No such file or directory)" in done.stderr


def test_a_broker_that_is_not_there_is_exit_3(model_path):
    done = worker(
        "run",
        ODRADEK_MODEL=str(model_path),
        ODRADEK_HTTP_PORT="0",
        ODRADEK_START_TIMEOUT_S="1",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
    )
    assert done.returncode == 3
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: no broker at 127.0.0.1:1 answered within 1 s; not starting")


def test_a_port_in_use_is_exit_3(model_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = worker(
            "run",
            ODRADEK_MODEL=str(model_path),
            ODRADEK_HTTP_HOST="127.0.0.1",
            ODRADEK_HTTP_PORT=str(port),
            KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        )
    assert done.returncode == 3
    assert f"port {port} on 127.0.0.1 cannot be had" in done.stderr


def test_a_property_whose_value_librdkafka_refuses_is_exit_2(model_path):
    done = worker(
        "run",
        ODRADEK_MODEL=str(model_path),
        ODRADEK_HTTP_PORT="0",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
        KAFKA_SECURITY_PROTOCOL="SLS",
    )
    assert done.returncode == 2
    assert "security.protocol" in done.stderr
