"""The Kubernetes manifests, checked strictly against their kinds' schemas, and each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule
from pydantic import ValidationError

from deploy.alerts.parameters import Parameters
from deploy.kubernetes import __main__ as generator
from deploy.kubernetes.__main__ import ALERTS, WORKERS, shipped
from tests.deploy.test_stack import ROOT
from worker.kafka_properties import kafka_properties
from worker.settings import PREFIX, WorkerSettings

FOLDER = ROOT / "deploy/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
# The operators' kinds, which Kubernetes' own schemas do not have.
OPERATORS = {
    kind.__name__: kind
    for kind in (PodMonitor, PrometheusRule, ScaledObject, TriggerAuthentication)
}


def check(manifest: dict[str, Any]) -> None:
    """Check a manifest against the schema of its kind; an unknown field is an error."""
    if operators := OPERATORS.get(manifest["kind"]):
        operators.model_validate(manifest, extra="forbid")
    else:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def manifests(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def one(name: str, kind: str) -> dict[str, Any]:
    (found,) = [each for each in manifests(FOLDER / name) if each["kind"] == kind]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_manifest_is_what_its_kind_wants_and_nothing_more(path):
    for manifest in manifests(path):
        check(manifest)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deployment.yaml", "Deployment"),
        ("keda.yaml", "ScaledObject"),
        ("monitoring.yaml", "PodMonitor"),
        ("alerts.yaml", "PrometheusRule"),
    ],
)
def test_a_misspelt_field_would_be_found(name, kind):
    manifest = one(name, kind)
    manifest["spec"]["misspelt"] = 2
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError), match="misspelt"):
        check(manifest)


def test_the_alert_rules_are_those_of_prometheus_and_current():
    assert ALERTS.read_text() == shipped(), f"run: python -m {generator.__package__}"


def workloads() -> list[dict[str, Any]]:
    return [one("deployment.yaml", "Deployment"), one("statefulset.yaml", "StatefulSet")]


def test_everybody_counts_on_the_same_number_of_workers():
    assert [each["spec"]["replicas"] for each in workloads()] == [WORKERS, WORKERS]
    assert one("keda.yaml", "ScaledObject")["spec"]["minReplicaCount"] == WORKERS
    assert f"({WORKERS} - (sum(up" in ALERTS.read_text()


def test_the_pods_differ_in_their_membership_alone():
    deployment, stateful = (each["spec"]["template"]["spec"] for each in workloads())
    added = stateful["containers"][0].pop("env")
    assert stateful == deployment
    assert [each["name"] for each in added] == [
        "KAFKA_CONSUMER_GROUP_INSTANCE_ID",
        "KAFKA_CONSUMER_SESSION_TIMEOUT_MS",
    ]


def test_a_worker_takes_the_settings_that_the_pods_are_given(tmp_path, bare_environment):
    given = dict(one("config.yaml", "ConfigMap")["data"])
    (tmp_path / "password").write_text("of a test")
    given["KAFKA_SASL_PASSWORD_FILE"] = str(tmp_path / "password")
    given["KAFKA_CONSUMER_GROUP_INSTANCE_ID"] = "odradek-worker-0"
    given["KAFKA_CONSUMER_SESSION_TIMEOUT_MS"] = "90000"
    _, problems = kafka_properties(given)
    assert not problems
    for name, value in given.items():
        if name.startswith(PREFIX):
            assert name.removeprefix(PREFIX).lower() in WorkerSettings.model_fields
            bare_environment.setenv(name, value)
    settings = WorkerSettings()
    grace_s = workloads()[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert settings.stop_timeout_s < grace_s
    triggers = one("keda.yaml", "ScaledObject")["spec"]["triggers"]
    assert triggers[0]["metadata"]["consumerGroup"] == settings.group_id
    assert triggers[0]["metadata"]["topic"] == settings.input_topic
    assert triggers[0]["metadata"]["bootstrapServers"] == given["KAFKA_BOOTSTRAP_SERVERS"]


def test_what_selects_pods_selects_these():
    for workload in workloads():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        for selector in (
            workload["spec"]["selector"]["matchLabels"],
            one("config.yaml", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            one("monitoring.yaml", "PodMonitor")["spec"]["selector"]["matchLabels"],
            one("statefulset.yaml", "Service")["spec"]["selector"],
        ):
            assert selector.items() <= labels.items()


def test_the_rules_see_the_job_and_the_workers_that_the_pod_monitor_makes():
    spec = one("monitoring.yaml", "PodMonitor")["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    for workload in workloads():
        pod = workload["spec"]["template"]
        job = pod["metadata"]["labels"][spec["jobLabel"]]
        assert job == Parameters().job
        assert f'job="{job}"' in ALERTS.read_text()
        (container,) = pod["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
    compose = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [each["job_name"] for each in compose["scrape_configs"]] == [job]
    relabelled = {each["targetLabel"]: each["sourceLabels"] for each in endpoint["relabelings"]}
    assert relabelled == {"instance": ["__meta_kubernetes_pod_name"]}


def test_a_manifest_with_other_parameters_is_written_and_a_wrong_one_refused(
    tmp_path, monkeypatch, capsys
):
    out = tmp_path / "alerts.yaml"
    arguments = ["--set", "runbook=https://runs.example/book.md", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["deploy.kubernetes", *arguments])
    assert generator.main() == 0
    text = out.read_text()
    assert "runbook_url: https://runs.example/book.md#odradekrestarts" in text
    assert f"{WORKERS} - (sum(up" in text
    for wrong in (["--set", "job"], ["--set", "job=a"], ["--sett", "job=a"]):
        monkeypatch.setattr(sys, "argv", ["deploy.kubernetes", *wrong])
        with pytest.raises(SystemExit):
            generator.main()
    assert "Nothing is written" in capsys.readouterr().err
    assert ALERTS.read_text() == shipped()


def test_a_service_named_kafka_puts_nothing_into_the_pods():
    for workload in workloads():
        assert workload["spec"]["template"]["spec"]["enableServiceLinks"] is False
