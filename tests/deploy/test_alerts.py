"""Every alert rule, judged by promtool: it fires where it must, and on near misses it does not."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.alerts.__main__ import main as write_rules
from deploy.alerts.__main__ import shipped
from deploy.alerts.grafana import provisioning
from deploy.alerts.parameters import Parameters
from deploy.alerts.rule import Rule
from deploy.alerts.rules import rule_file, rules, told_of
from deploy.grafana.boards import BOARDS
from tests.deploy import alert_cases, detection_cases
from tests.deploy.alert_cases import Case
from tests.deploy.promtool import a_test, judge, promtool, run
from worker.declared import DECLARED
from worker.declared_turns import SECONDS

ROOT = Path(__file__).parents[2]
CASES = (*alert_cases.CASES, *detection_cases.CASES)
RULES = {rule.name: rule for rule in rules(Parameters())}


def as_test(case: Case) -> dict[str, Any]:
    rule, parameters = RULES[case.alert], Parameters()
    expected = []
    if case.labels is not None:
        told = {**told_of(rule, parameters), "summary": case.summary}
        labels = {"severity": rule.severity, "job": parameters.job, **case.labels}
        expected = [{"exp_labels": labels, "exp_annotations": told}]
    what = {
        "eval_time": f"{case.minutes}m",
        "alertname": case.alert,
        "exp_alerts": expected,
    }
    name = f"{case.alert}: {case.why}"
    return a_test(case.series, parameters.job, name=name, alert_rule_test=[what])


def judged(folder: Path, rule: Rule) -> str:
    """Return what promtool has against a rule by the cases of its name."""
    tests = [as_test(case) for case in cases_of(rule.name)]
    return judge(folder, rule_file(Parameters(), [rule]), tests)


def cases_of(name: str) -> tuple[Case, ...]:
    return tuple(case for case in CASES if case.alert == name)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_fires_where_it_must_and_not_on_a_near_miss(name: str, tmp_path: Path):
    assert judged(tmp_path, RULES[name]) == ""


@pytest.mark.parametrize("name", RULES)
def test_there_is_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str):
    assert {case.fires for case in cases_of(name)} == {True, False}


@pytest.mark.parametrize("name", RULES)
def test_the_cases_of_an_alert_find_a_rule_that_always_or_never_fires(name: str, tmp_path: Path):
    """A check of the checks: a bound that is out of reach, and one that everything passes."""
    for bound in (1e12, -1e12):
        changed = dataclasses.replace(RULES[name], bound=bound)
        assert judged(tmp_path, changed), bound


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.name)
def test_what_is_shipped_is_what_the_rules_make(path: Path):
    assert path.read_text() == shipped()[path], "run `python -m deploy.alerts`"


def test_prometheus_and_alertmanager_have_nothing_against_what_the_stack_gives_them():
    """The rules among them: the configuration names their file."""
    alertmanager = str(ROOT / "deploy/alertmanager/alertmanager.yml")
    for answer in (
        promtool("check", "config", str(ROOT / "deploy/prometheus/prometheus.yml")),
        run("amtool", "prometheus-alertmanager", "check-config", alertmanager),
    ):
        assert answer.returncode == 0, answer.stdout + answer.stderr
        assert "SUCCESS" in answer.stdout


def test_each_rule_has_its_chapter_in_the_runbook_and_each_chapter_its_rule():
    runbook = (ROOT / "docs/runbook.md").read_text()
    chapters = re.split(r"^## (Odradek\w+)$", runbook, flags=re.MULTILINE)[1:]
    texts = dict(zip(chapters[::2], chapters[1::2], strict=True))
    assert list(texts) == list(RULES)
    for name, text in texts.items():
        for part in ("**It means**", "**Look**", "**Do**"):
            assert part in text, f"{name} has no {part}"


def test_every_rule_waits_and_says_what_whom_and_where():
    for rule in RULES.values():
        assert rule.for_s >= 15, f"{rule.name} fires at once"
        assert rule.severity in {"page", "ticket"}
        assert told_of(rule, Parameters())["runbook_url"].endswith(f"#{rule.name.lower()}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lag_recods_min=3", "lag_recods_min: not a parameter"),
        ("workers_expected", "no value; wanted workers_expected=VALUE"),
        ("workers_expected=three", "'three'; wanted a whole number"),
        ("workers_expected=-1", "is -1; wanted 0"),
        ("latency_objective_s=3600", "is 3600; wanted 0 to 3599"),
        ("latency_quantile=99", "is 99; wanted 0.01"),
        ("bad_share=1.5", "is 1.5; wanted 0"),
        ("lag_growth_per_s=nan", "is nan"),
        ("flag_window_s=0", "is 0; wanted 1"),
        ("flag_factor=0", "is 0; wanted 1"),
        ('job=a"b', "wanted a text without quotes"),
    ],
)
def test_a_parameter_that_would_make_a_dead_or_broken_rule_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said) as refused:
        Parameters().with_changes([change])
    assert str(refused.value).startswith(change.partition("=")[0])


def test_a_parameter_is_read_from_its_text():
    changed = Parameters().with_changes(["workers_expected=3", "bad_share=0.5", "job=a b"])
    assert (changed.workers_expected, changed.bad_share, changed.job) == (3, 0.5, "a b")


def test_an_objective_lies_within_what_the_histogram_can_tell():
    assert Parameters(latency_objective_s=SECONDS[-1] - 1)
    with pytest.raises(ValueError, match="latency_objective_s"):
        Parameters(latency_objective_s=SECONDS[-1])


def test_the_rules_of_two_jobs_stand_side_by_side_in_grafana():
    def told_apart(job: str) -> tuple[str, set[str]]:
        (*groups,) = yaml.safe_load(provisioning(Parameters(job=job))["rules.yml"])["groups"]
        (folder,) = {group["folder"] for group in groups}
        return folder, {rule["uid"] for group in groups for rule in group["rules"]}

    (ours, our_ids), (theirs, their_ids) = told_apart("odradek-worker"), told_apart("payments")
    assert ours != theirs
    assert not our_ids & their_ids
    assert all(len(uid) <= 40 for uid in their_ids)


def test_what_the_runbook_sends_one_to_is_there():
    runbook = (ROOT / "docs/runbook.md").read_text()
    panels = {panel.title for board in BOARDS for panel in board.panels}
    named = set(re.findall(r'"([A-Z][^"`]*)"', runbook)) - {"NAME", "P"}  # Labels in queries.
    assert named
    assert named <= panels
    metrics = {metric.scraped_name for metric in DECLARED}
    assert set(re.findall(r"odradek_[a-z_]+", runbook)) <= metrics
    parameters = {field.name for field in dataclasses.fields(Parameters)} | metrics
    assert set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", runbook)) <= parameters


def test_rules_with_other_parameters_are_written_for_prometheus_and_for_grafana(
    tmp_path, monkeypatch
):
    rules, grafana = tmp_path / "new" / "alerts.yml", tmp_path / "new" / "grafana.yml"
    arguments = ["--set", "workers_expected=7", "--out", str(rules), "--grafana", str(grafana)]
    monkeypatch.setattr(sys, "argv", ["deploy.alerts", *arguments])

    assert write_rules() == 0

    for path in (rules, grafana):
        assert '7 - (sum(up{job="odradek-worker"}) or vector(0))' in path.read_text()
