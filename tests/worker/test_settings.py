"""Settings from environment and flags: all problems at once, by name, and no secret told."""

from __future__ import annotations

import pytest

from schemas.errors import EXIT_USER, SettingsError, run_program
from worker.kafka_properties import _REFUSED, TRANSACTION_TIMEOUT_MS, kafka_properties
from worker.settings import WorkerSettings, read_settings
from worker.starts import StartRules

SERVERS = {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092"}


@pytest.fixture
def environment(bare_environment):
    """The least that a worker needs; the test adds to it."""
    bare_environment.setenv("ODRADEK_MODEL", "/models/model.onnx")
    bare_environment.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")
    return bare_environment


def problems_of(arguments: list[str] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        read_settings(arguments or [])
    return str(refused.value)


@pytest.mark.usefixtures("environment")
def test_the_least_environment_gives_the_documented_defaults():
    settings, kafka = read_settings([])
    assert str(settings.model) == "/models/model.onnx"
    assert (settings.input_topic, settings.output_topic) == ("events", "scores")
    assert settings.dead_letter_topic == "dead-letters"
    assert settings.group_id == "odradek-events"
    assert settings.delivery == "at-least-once"
    assert kafka.consumer["bootstrap.servers"] == kafka.producer["bootstrap.servers"]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", WorkerSettings.model_fields)
def test_every_setting_is_a_flag_and_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit) as left:
        read_settings(["--help"])
    assert left.value.code == 0
    assert f"--{name.replace('_', '-')}" in capsys.readouterr().out
    assert (WorkerSettings.model_fields[name].description or "").endswith(".")


@pytest.mark.parametrize(
    ("variable", "flag", "value", "read"),
    [
        ("ODRADEK_INPUT_TOPIC", "--input-topic", "pulses", "pulses"),
        ("ODRADEK_BATCH_MAX", "--batch-max", "17", 17),
        ("ODRADEK_GROUP", "--group", "g", "g"),
        ("ODRADEK_PROVIDER", "--provider", "cpu", "cpu"),
        ("ODRADEK_HTTP_PORT", "--http-port", "0", 0),
        ("ODRADEK_STOP_TIMEOUT_S", "--stop-timeout-s", "2.5", 2.5),
        ("ODRADEK_MODEL_DIGEST", "--model-digest", "ab" * 32, "ab" * 32),
        ("ODRADEK_DELIVERY", "--delivery", "exactly-once", "exactly-once"),
        ("ODRADEK_START", "--start", "latest", "latest"),
        ("ODRADEK_FROM_TIME", "--from-time", "2026-01-01T06:00:00Z", "2026-01-01T06:00:00Z"),
        ("ODRADEK_FROM_OFFSET", "--from-offset", "0:17,2:40", "0:17,2:40"),
        ("ODRADEK_ON_GAP", "--on-gap", "jump", "jump"),
        ("ODRADEK_BREAKER", "--breaker", "off", "off"),
        ("ODRADEK_BREAKER_RATIO", "--breaker-ratio", "0.5", 0.5),
    ],
)
def test_a_variable_and_a_flag_set_the_same(variable, flag, value, read, environment):
    name = flag.removeprefix("--").replace("-", "_")
    flagged, _ = read_settings([f"{flag}={value}"])
    environment.setenv(variable, value)
    from_environment, _ = read_settings([])
    assert getattr(flagged, name) == getattr(from_environment, name) == read


def test_a_switch_is_a_flag_alone_or_a_variable(environment):
    assert read_settings(["--allow-contract-change"])[0].allow_contract_change
    assert not read_settings(["--no-allow-contract-change"])[0].allow_contract_change
    environment.setenv("ODRADEK_ALLOW_CONTRACT_CHANGE", "true")
    assert read_settings([])[0].allow_contract_change


def test_a_flag_wins_over_its_variable(environment):
    environment.setenv("ODRADEK_INPUT_TOPIC", "from-environment")
    assert read_settings(["--input-topic", "from-flag"])[0].input_topic == "from-flag"


def test_an_empty_variable_is_not_set(environment):
    environment.setenv("ODRADEK_INPUT_TOPIC", "")
    assert read_settings([])[0].input_topic == "events"


def test_all_problems_stand_in_one_message(bare_environment):
    bare_environment.setenv("ODRADEK_BATCH_MAX", "0")
    bare_environment.setenv("ODRADEK_INPUT_TOPIK", "x")
    bare_environment.setenv("KAFKA_ENABLE_AUTO_COMMIT", "true")
    bare_environment.setenv("KAFKA_SASL_PASWORD", "x")
    text = problems_of()
    assert "ODRADEK_MODEL (--model) is not set, and there is no default" in text
    assert "ODRADEK_BATCH_MAX (--batch-max): Input should be greater than or equal to 1" in text
    assert "ODRADEK_INPUT_TOPIK is not a setting; did you mean 'ODRADEK_INPUT_TOPIC'?" in text
    assert "KAFKA_ENABLE_AUTO_COMMIT: enable.auto.commit is not yours to set" in text
    assert "no property 'sasl.pasword'; did you mean 'sasl.password'?" in text
    assert "KAFKA_BOOTSTRAP_SERVERS is not set; wanted host:port" in text
    assert text.count("\n  - ") == 6
    assert "not starting" in text


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("ODRADEK_PROVIDER", "gpu", "'auto', 'cuda' or 'cpu'; seen 'gpu'"),
        ("ODRADEK_HTTP_PORT", "70000", "less than or equal to 65535"),
        ("ODRADEK_HTTP_PORT", "http", "valid integer"),
        ("ODRADEK_MODEL_DIGEST", "ABC", "should match pattern"),
        ("ODRADEK_STOP_TIMEOUT_S", "0", "greater than 0"),
        ("ODRADEK_STOP_TIMEOUT_S", "nan", "seen 'nan'"),
        ("ODRADEK_STOP_TIMEOUT_S", "inf", "less than or equal to 86400"),
        ("ODRADEK_ALLOW_CONTRACT_CHANGE", "perhaps", "valid boolean"),
        ("ODRADEK_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("ODRADEK_DELIVERY", "once", "'at-least-once' or 'exactly-once'; seen 'once'"),
        ("ODRADEK_START", "newest", "'earliest' or 'latest'; seen 'newest'"),
        ("ODRADEK_ON_GAP", "skip", "'stop' or 'jump'; seen 'skip'"),
        ("ODRADEK_BREAKER", "perhaps", "'on' or 'off'; seen 'perhaps'"),
        ("ODRADEK_BREAKER_RATIO", "0", "greater than 0; seen '0'"),
        ("ODRADEK_BREAKER_RATIO", "1.5", "less than or equal to 1; seen '1.5'"),
        ("ODRADEK_BREAKER_RATIO", "nan", "seen 'nan'"),
        ("ODRADEK_FROM_TIME", "soon", "wanted epoch milliseconds, or RFC 3339 such as 2026-"),
        ("ODRADEK_FROM_TIME", "2026-01-01T06:00:00", "; seen '2026-01-01T06:00:00'"),
        ("ODRADEK_FROM_OFFSET", "x", "wanted one offset, or partition:offset pairs such as 0:17,"),
        ("ODRADEK_FROM_OFFSET", "0:1,5", "; seen '0:1,5'"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_was_wanted(variable, value, told, environment):
    environment.setenv(variable, value)
    text = problems_of()
    assert f"{variable} (--" in text
    assert told in text


@pytest.mark.parametrize("name", ["ODRADEK_OUTPUT_TOPIC", "ODRADEK_DEAD_LETTER_TOPIC"])
def test_topics_that_would_feed_each_other_are_refused(name, environment):
    environment.setenv(name, "events")
    assert "must be three; seen events" in problems_of()


def test_both_clients_use_one_cluster(environment):
    environment.setenv("KAFKA_PRODUCER_BOOTSTRAP_SERVERS", "elsewhere:9092")
    assert "both clients must use one cluster" in problems_of()


@pytest.mark.parametrize(
    "name", ["KAFKA_STATISTICS_INTERVAL_MS", "KAFKA_PRODUCER_QUEUE_BUFFERING_MAX_MESSAGES"]
)
def test_properties_that_the_worker_lives_by_are_refused(name, environment):
    environment.setenv(name, "1")
    assert f"{name}: " in problems_of()


@pytest.mark.parametrize("variable", ["KAFKA_ISOLATION_LEVEL", "KAFKA_CONSUMER_ISOLATION_LEVEL"])
def test_exactly_once_does_not_go_with_uncommitted_reads(variable, environment):
    environment.setenv(variable, "read_uncommitted")
    assert read_settings([])[1].consumer["isolation.level"] == "read_uncommitted"
    environment.setenv("ODRADEK_DELIVERY", "exactly-once")
    text = problems_of()
    assert "KAFKA_ISOLATION_LEVEL=read_uncommitted: exactly-once needs read_committed" in text
    assert "not starting" in text
    assert run_program(lambda: bool(read_settings([]))) == EXIT_USER == 2


def test_a_transactional_id_is_not_yours_to_set(environment):
    environment.setenv("ODRADEK_DELIVERY", "exactly-once")
    environment.setenv("KAFKA_TRANSACTIONAL_ID", "mine")
    assert "it is made of the group and KAFKA_CONSUMER_GROUP_INSTANCE_ID" in problems_of()


def test_exactly_once_has_a_time_limit_of_its_own(environment):
    environment.setenv("ODRADEK_DELIVERY", "exactly-once")
    _, kafka = read_settings([])
    assert kafka.producer["transaction.timeout.ms"] == TRANSACTION_TIMEOUT_MS
    assert "message.timeout.ms" not in kafka.producer, "a message waits as long as its transaction"
    environment.setenv("KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS", "3000")
    assert read_settings([])[1].producer["transaction.timeout.ms"] == "3000"
    environment.setenv("KAFKA_PRODUCER_TRANSACTION_TIMEOUT_MS", "soon")
    assert "KAFKA_TRANSACTION_TIMEOUT_MS: wanted a whole number; seen 'soon'" in problems_of()


def test_the_rules_of_the_start_come_from_the_settings(environment):
    assert read_settings([])[0].start_rules == StartRules("earliest", "stop")
    environment.setenv("ODRADEK_START", "latest")
    environment.setenv("ODRADEK_ON_GAP", "jump")
    environment.setenv("ODRADEK_FROM_TIME", "2026-01-01T06:00:00Z")
    rules = read_settings([])[0].start_rules
    assert rules == StartRules("latest", "jump", from_time_ms=1767247200000)
    environment.delenv("ODRADEK_FROM_TIME")
    environment.setenv("ODRADEK_FROM_OFFSET", "0:17,2:40")
    rules = read_settings([])[0].start_rules
    assert rules == StartRules("latest", "jump", from_offsets={0: 17, 2: 40})


def test_only_one_deliberate_start_can_be_heeded(environment):
    environment.setenv("ODRADEK_FROM_TIME", "1000")
    environment.setenv("ODRADEK_FROM_OFFSET", "1")
    assert "ODRADEK_FROM_TIME and ODRADEK_FROM_OFFSET: only one can be heeded" in problems_of()


@pytest.mark.usefixtures("environment")
def test_an_unknown_flag_is_a_problem():
    assert "--no-such-flag" in problems_of(["--no-such-flag", "1"])


def test_variables_of_the_projects_other_programs_are_left_alone(environment):
    environment.setenv("ODRADEK_DATA", "/data")
    environment.setenv("ODRADEK_CACHE", "/cache")
    read_settings([])


@pytest.mark.usefixtures("environment")
def test_kafka_flags_are_kafka_variables():
    _, kafka = read_settings(["--kafka-client-id", "me", "--kafka-producer-linger-ms=9"])
    assert kafka.consumer["client.id"] == kafka.producer["client.id"] == "me"
    assert kafka.producer["linger.ms"] == "9"
    assert "linger.ms" not in kafka.consumer


@pytest.mark.parametrize("name", _REFUSED)
def test_a_property_that_would_break_a_promise_is_refused_by_name(name):
    variable = "KAFKA_" + name.upper().replace(".", "_")
    _, problems = kafka_properties({**SERVERS, variable: "x"})
    assert problems == [f"{variable}: {name} is not yours to set: {_REFUSED[name]}"]


def test_the_promises_properties_are_set():
    kafka, problems = kafka_properties(SERVERS)
    assert not problems
    assert kafka.consumer["enable.auto.commit"] is False
    assert kafka.consumer["enable.auto.offset.store"] is False
    assert kafka.consumer["auto.offset.reset"] == "error"
    assert kafka.consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert kafka.producer["acks"] == "all"
    assert kafka.producer["enable.idempotence"] is True
    assert kafka.producer["message.timeout.ms"] == 0


def test_a_property_of_one_client_goes_to_it_alone():
    kafka, problems = kafka_properties(
        {
            **SERVERS,
            "KAFKA_CONSUMER_CLIENT_ID": "c",
            "KAFKA_PRODUCER_CLIENT_ID": "p",
            "KAFKA_FETCH_MIN_BYTES": "2",
            "KAFKA_COMPRESSION_TYPE": "lz4",
        }
    )
    assert not problems
    assert (kafka.consumer["client.id"], kafka.producer["client.id"]) == ("c", "p")
    assert kafka.consumer["fetch.min.bytes"] == "2"
    assert "fetch.min.bytes" not in kafka.producer
    assert kafka.producer["compression.type"] == "lz4"
    assert "compression.type" not in kafka.consumer


def test_a_property_with_an_underscore_in_its_own_name_is_found():
    kafka, problems = kafka_properties({**SERVERS, "KAFKA_SSL_CA_PEM": "x"})
    assert not problems
    assert kafka.consumer["ssl.ca.pem"] == "x"


def test_defaults_can_be_overridden():
    kafka, _ = kafka_properties({**SERVERS, "KAFKA_LINGER_MS": "50"})
    assert kafka.producer["linger.ms"] == "50"


@pytest.mark.parametrize(
    ("given", "max_poll_ms"),
    [
        ({}, 60_000),
        ({"KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "90000"}, 90_000),
        ({"KAFKA_CONSUMER_SESSION_TIMEOUT_MS": "6000"}, 60_000),
        ({"KAFKA_CONSUMER_MAX_POLL_INTERVAL_MS": "120000"}, "120000"),
    ],
)
def test_polls_may_be_a_minute_apart_and_no_closer_than_a_session(given, max_poll_ms):
    kafka, problems = kafka_properties({**SERVERS, **given})
    assert not problems
    assert kafka.consumer["max.poll.interval.ms"] == max_poll_ms


def test_a_secret_comes_from_a_file(tmp_path):
    (tmp_path / "password").write_text("s3cret\n")
    kafka, problems = kafka_properties(
        {**SERVERS, "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")}
    )
    assert not problems
    assert kafka.consumer["sasl.password"] == kafka.producer["sasl.password"] == "s3cret"


def test_a_secret_file_that_is_absent_is_a_problem(tmp_path):
    _, problems = kafka_properties(
        {**SERVERS, "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "absent")}
    )
    assert problems == [
        "KAFKA_SASL_PASSWORD_FILE: the file cannot be read (No such file or directory)"
    ]


def test_a_refused_property_is_refused_from_a_file_too(tmp_path):
    (tmp_path / "x").write_text("true")
    _, problems = kafka_properties(
        {**SERVERS, "KAFKA_ENABLE_AUTO_COMMIT_FILE": str(tmp_path / "x")}
    )
    assert "enable.auto.commit is not yours to set" in problems[0]


def test_no_secret_is_told(environment, caplog, tmp_path):
    (tmp_path / "key").write_text("fr0m-file")
    environment.setenv("KAFKA_SASL_PASWORD", "s3cret-mistyped-name")
    environment.setenv("KAFKA_SASL_PASWORD", "s3cret")
    environment.setenv("KAFKA_SSL_KEY_PASSWORD_FILE", str(tmp_path / "key"))
    environment.setenv("KAFKA_ACKS", "s3cret-refused")
    told = problems_of() + caplog.text
    assert "s3cret" not in told
    assert "fr0m-file" not in told


@pytest.mark.parametrize(
    "variable",
    [
        "KAFKA_PORT",
        "KAFKA_SERVICE_HOST",
        "KAFKA_SERVICE_PORT",
        "KAFKA_SERVICE_PORT_CLIENTS",
        "KAFKA_PORT_9092_TCP",
        "KAFKA_PORT_9092_TCP_ADDR",
        "KAFKA_UI_SERVICE_HOST",
        "KAFKA_UI_PORT_8080_TCP_PROTO",
    ],
)
def test_what_kubernetes_injects_is_ignored_with_a_line(variable, caplog):
    caplog.set_level("INFO")
    _, problems = kafka_properties({**SERVERS, variable: "tcp://10.0.0.1:9092"})
    assert not problems
    assert f"Ignored {variable}" in caplog.text


def test_service_links_of_our_own_name_are_ignored(environment):
    environment.setenv("ODRADEK_SERVICE_HOST", "10.0.0.1")
    environment.setenv("ODRADEK_WORKER_PORT_9108_TCP_ADDR", "10.0.0.1")
    read_settings([])


def test_another_way_to_assign_partitions_is_refused():
    _, problems = kafka_properties({**SERVERS, "KAFKA_PARTITION_ASSIGNMENT_STRATEGY": "range"})
    assert problems == [
        "KAFKA_PARTITION_ASSIGNMENT_STRATEGY: only cooperative-sticky is supported; seen 'range'"
    ]


def test_a_number_that_we_compute_with_must_be_one():
    _, problems = kafka_properties({**SERVERS, "KAFKA_MAX_POLL_INTERVAL_MS": "soon"})
    assert problems == ["KAFKA_MAX_POLL_INTERVAL_MS: wanted a whole number; seen 'soon'"]


def test_the_new_groups_protocol_brings_its_own_assignor():
    kafka, problems = kafka_properties({**SERVERS, "KAFKA_GROUP_PROTOCOL": "consumer"})
    assert not problems
    assert "partition.assignment.strategy" not in kafka.consumer


@pytest.mark.parametrize(
    "name", ["SESSION_TIMEOUT_MS", "HEARTBEAT_INTERVAL_MS", "PARTITION_ASSIGNMENT_STRATEGY"]
)
def test_what_the_new_groups_protocol_leaves_to_the_broker_is_refused_by_name(name):
    value = "cooperative-sticky" if "STRATEGY" in name else "6000"
    given = {**SERVERS, f"KAFKA_CONSUMER_{name}": value}
    assert kafka_properties(given)[1] == []
    _, problems = kafka_properties({**given, "KAFKA_CONSUMER_GROUP_PROTOCOL": "consumer"})
    (problem,) = problems
    assert problem.startswith(f"KAFKA_CONSUMER_{name}: with group.protocol=consumer, ")
    assert problem.endswith("is set at the broker (group.consumer.* there). Leave it out")


def test_a_group_protocol_that_nobody_knows_is_refused():
    _, problems = kafka_properties({**SERVERS, "KAFKA_GROUP_PROTOCOL": "new"})
    assert problems == ["KAFKA_CONSUMER_GROUP_PROTOCOL: wanted classic or consumer; seen 'new'"]
