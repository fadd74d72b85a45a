"""The settings of a redrive: what is its own, what it shares with `run`, and its group."""

from __future__ import annotations

import pytest

from schemas.dead_letter import Reason
from schemas.errors import SettingsError
from worker.redrive_settings import RedriveSettings, read_redrive_settings
from worker.settings import WorkerSettings, read_settings
from worker.starts import StartRules

OF_RUN_ALONE = {"start", "from_time", "from_offset", "breaker", "breaker_ratio", "tracing"}


@pytest.fixture
def environment(bare_environment):
    bare_environment.setenv("ODRADEK_MODEL", "/models/model.onnx")
    bare_environment.setenv("ODRADEK_INPUT_TOPIC", "events")
    bare_environment.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")
    return bare_environment


def redrive(*flags: str) -> RedriveSettings:
    return read_redrive_settings(flags)[0]


def problems_of(*flags: str) -> str:
    with pytest.raises(SettingsError) as refused:
        redrive(*flags)
    return str(refused.value)


@pytest.mark.usefixtures("environment")
def test_it_reads_dead_letters_and_writes_scores_and_dead_letters():
    settings = redrive()
    assert settings.reads == "dead-letters"
    assert settings.writes == ("scores", "dead-letters")
    assert redrive("--to-input").writes == ("events", "dead-letters")
    assert settings.reasons == frozenset(Reason)
    assert settings.http_port == 0


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("name", RedriveSettings.model_fields)
def test_every_setting_is_a_flag_and_says_what_it_is(name, capsys):
    with pytest.raises(SystemExit) as left:
        redrive("--help")
    assert left.value.code == 0
    assert f"--{name.replace('_', '-')}" in capsys.readouterr().out
    assert (RedriveSettings.model_fields[name].description or "").endswith(".")


def test_what_applies_is_defined_once():
    shared = WorkerSettings.model_fields.keys() - OF_RUN_ALONE
    assert RedriveSettings.model_fields.keys() == shared | {"reason", "to_input"}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "flags",
    [
        ("--reason", "text,not_json"),
        ("--reason", "not_json", "--reason", "text"),
        ("--reason=not_json, text ,", "--reason", "text"),
    ],
)
def test_reasons_are_a_list_or_are_repeated(flags):
    settings = redrive(*flags)
    assert settings.reasons == {Reason.NOT_JSON, Reason.TEXT}
    assert settings.group_id == "odradek-events-redrive-not_json-text"


@pytest.mark.usefixtures("environment")
def test_a_reason_outside_the_list_is_named_with_the_nearest():
    told = problems_of("--reason", "text,not_jason")
    assert "'not_jason' is no reason; did you mean 'not_json'?; wanted some of tombstone, " in told


def test_its_group_is_named_after_that_of_the_input_topic(environment):
    assert redrive().group_id == "odradek-events-redrive"
    assert redrive("--to-input").group_id == "odradek-events-redrive"
    environment.setenv("ODRADEK_GROUP", "payments")
    assert redrive().group_id == "payments-redrive"
    assert redrive("--reason", "text").group_id == "payments-redrive-text"
    assert redrive("--group", "again").group_id == "again-redrive"
    assert read_settings([])[0].group_id == "payments"


def test_only_sending_to_the_input_needs_no_model(environment):
    environment.delenv("ODRADEK_MODEL")
    assert "ODRADEK_MODEL (--model) is not set; only --to-input needs none" in problems_of()
    assert redrive("--to-input").model is None


def test_the_environment_may_be_that_of_run_but_a_flag_of_run_is_a_mistake(environment):
    environment.setenv("ODRADEK_START", "latest")
    environment.setenv("ODRADEK_FROM_TIME", "17")
    environment.setenv("ODRADEK_BREAKER", "on")
    environment.setenv("ODRADEK_ON_GAP", "jump")
    assert redrive().start_rules == StartRules(on_gap="jump")
    assert "--start" in problems_of("--start", "latest")
    environment.setenv("ODRADEK_STAR", "x")
    assert "ODRADEK_STAR is not a setting; did you mean 'ODRADEK_START'?" in problems_of()


def test_a_redrives_own_setting_is_not_one_of_run(environment):
    environment.setenv("ODRADEK_TO_INPUT", "true")
    assert redrive().to_input
    with pytest.raises(SettingsError, match="ODRADEK_TO_INPUT is not a setting"):
        read_settings([])
