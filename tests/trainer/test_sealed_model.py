"""What the trainer seals: the promises of the format, on a file made by the real program."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from schemas.contract import ModelRefused
from schemas.datafiles import FileOptions
from schemas.digest import stamp, verified_digest
from tests.trainer.conftest import EPOCH, NAMES, QUICK, normal_rows
from trainer.__main__ import main
from trainer.data import load, rows_in_common
from trainer.export import export, with_contract
from trainer.runtime import open_sealed, open_session, run
from trainer.seal import staged
from trainer.verify import verify


def test_the_same_seed_gives_the_same_bytes_in_another_folder(
    sealed_path, normal_csv, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    monkeypatch.chdir(tmp_path)

    assert main(["fit", str(normal_csv), "--out", "tiny.onnx", *QUICK]) == 0

    assert (tmp_path / "tiny.onnx").read_bytes() == sealed_path.read_bytes()


def test_no_trace_of_the_machine_is_in_the_file(sealed_path):
    data = sealed_path.read_bytes()

    assert not re.search(rb"/(home|work|tmp|usr|root|var)/|\.py\b|site-packages|Traceback", data)


def test_the_file_holds_the_graph_that_batches_do_not_change(sealed_path):
    """Log, Softplus and reductions give a row other bits in other places; see the plan."""
    model = onnx.load(sealed_path)

    operations = {node.op_type for node in model.graph.node}
    assert not operations & {
        "Log", "Softplus", "ReduceSum", "ReduceMean", "LayerNormalization", "Dropout", "If", "Loop",
    }  # fmt: skip
    assert [entry.key for entry in model.metadata_props][-1] == "odradek.digest"
    assert model.opset_import[0].version == 20


def test_the_contract_says_how_the_model_was_made(sealed):
    training = sealed.contract.training

    assert sealed.contract.name == "tiny"
    assert sealed.contract.version == "20261124T142100Z"
    assert sealed.contract.created_at == "2026-11-24T14:21:00Z"
    assert sealed.contract.feature_names == NAMES
    assert not sealed.contract.holds_training_rows
    parts = {"fit": 851, "stop": 150, "combine": 0, "calibrate": 499, "trimmed": 0}
    assert training["rows"] == parts
    assert {name: fitted["kind"] for name, fitted in training["transforms"].items()} == {
        "pt": "standardise",
        "eta": "standardise",
        "mass": "standardise",
        "tail": "asinh",
        "rare": "asinh",
        "steady": "constant",
    }
    assert len(training["curves"]["training"]) == len(training["curves"]["validation"])
    assert re.fullmatch("[0-9a-f]{64}", training["rows_sha256"])
    assert training["versions"]["torch"] == torch.__version__.split("+")[0]


def test_no_rate_asked_for_is_recorded_as_such(sealed):
    threshold = sealed.contract.threshold

    assert (threshold.requested_flag_rate, threshold.target_flag_rate) == (None, 0.002)
    assert "smallest supported" in sealed.contract.training["notes"][0]


def test_the_calibration_is_what_the_graph_gives(sealed):
    calibration = sealed.contract.calibration

    assert calibration.n == sealed.contract.training["rows"]["calibrate"] == 499
    flagged = (calibration.scores > sealed.contract.threshold.value).sum()
    assert flagged <= 0.002 * (calibration.n + 1)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, np.inf, -np.inf])
@pytest.mark.parametrize("column", range(len(NAMES)))
def test_an_extreme_value_gives_a_finite_and_high_score(sealed, value, column):
    rows = normal_rows(1, seed=5)
    rows[0, column] = value

    outputs = run(sealed.session, rows)

    assert np.isfinite(outputs.score[0])
    assert outputs.score[0] > 5 * np.median(sealed.contract.calibration.scores)
    assert outputs.contributions[0].argmax() == column
    assert np.isfinite(outputs.expected).all()


def test_a_constant_that_varies_raises_the_score_by_its_own_part(sealed):
    rows = np.repeat(normal_rows(1, seed=6), 3, axis=0)
    rows[:, 5] = [7.5, 7.6, 75.0]

    scores = run(sealed.session, rows)

    assert scores.score[0] + 1 < scores.score[1] < scores.score[2]
    assert scores.contributions[0, 5] == 0
    np.testing.assert_array_equal(scores.contributions[0, :5], scores.contributions[1, :5])


def test_missing_features_have_no_part_and_do_not_make_an_event_look_normal(sealed):
    rows = normal_rows(400, seed=7)
    rows[np.isnan(rows)] = 0
    holed = rows.copy()
    holed[:, 1] = np.nan

    whole, without = run(sealed.session, rows), run(sealed.session, holed)

    assert not without.contributions[:, 1].any()
    assert 0.5 < np.median(without.score) / np.median(whole.score) < 2


def test_a_row_without_any_feature_has_no_score(sealed):
    outputs = run(sealed.session, np.full((1, len(NAMES)), np.nan, np.float32))

    assert np.isnan(outputs.score[0])
    assert np.isfinite(outputs.contributions).all()
    assert np.isfinite(outputs.expected).all()


@pytest.mark.parametrize("steady", [7.5, 8.5])
def test_a_row_of_constants_alone_has_no_score(sealed, steady):
    rows = np.full((2, len(NAMES)), np.nan, np.float32)
    rows[:, NAMES.index("steady")] = steady
    rows[1, 0] = 50.0

    outputs = run(sealed.session, rows)

    assert list(np.isnan(outputs.score)) == [True, False]
    assert np.isfinite(outputs.contributions).all()
    assert np.isfinite(outputs.expected).all()


def test_the_golden_batch_holds_no_training_row(sealed, normal_csv):
    table, _, _ = load([normal_csv], FileOptions(), {})

    assert rows_in_common(table.features, sealed.contract.golden.rows(len(NAMES))) == 0


def test_what_is_expected_is_in_the_users_units(sealed):
    rows = np.array([[60, 0, 120, 0, 0, 7.5]], np.float32)

    expected = run(sealed.session, rows).expected[0]

    assert 20 < expected[0] < 100
    assert expected[5] == 7.5


class Shifted(nn.Module):
    """A network that is not quite the one in the file."""

    def __init__(self, session):
        super().__init__()
        self.session = session

    def forward(self, features):
        outputs = run(self.session, features.numpy())
        score = torch.from_numpy(outputs.score * np.float32(1.001))
        return score, torch.from_numpy(outputs.contributions), torch.from_numpy(outputs.expected)


def test_a_file_that_disagrees_with_torch_is_not_left_behind(sealed_path, sealed, tmp_path):
    out = tmp_path / "model.onnx"

    def write():
        with staged(out) as draft:
            draft.write_bytes(sealed_path.read_bytes())
            verify(draft, Shifted(sealed.session), normal_rows(50))

    with pytest.raises(ModelRefused, match="batches of 1, torch and the file differ in the score"):
        write()
    assert list(tmp_path.iterdir()) == []


class RowSums(nn.Module):
    """A graph whose score depends on the company that a row keeps."""

    def forward(self, features):
        present = (~torch.isnan(features)).to(torch.float32)
        x = torch.where(torch.isnan(features), torch.zeros(()), features).clamp(-100, 100)
        parts = x * x * present / present.sum(1, keepdim=True).clamp(min=1.0)
        score = parts.sum(1) + 1e-3 * parts.mean(0).sum()
        nothing = present.sum(1) < 0.5
        return torch.where(nothing, torch.nan, score), parts, torch.zeros_like(parts)


def test_a_model_whose_scores_depend_on_the_batch_is_refused(sealed, tmp_path):
    from msgspec.structs import replace

    from schemas.contract import GoldenBatch

    module, rows = RowSums(), normal_rows(50)
    graph = export(module, len(NAMES))
    golden = sealed.contract.golden.rows(len(NAMES))
    scores = run(open_session(graph.SerializeToString()), golden).score
    contract = replace(sealed.contract, golden=GoldenBatch.of(golden, scores))
    path = tmp_path / "model.onnx"
    path.write_bytes(stamp(with_contract(graph, contract.to_json())))

    with pytest.raises(ModelRefused, match="a row's score differs"):
        verify(path, module, rows)


class Counting(nn.Module):
    """What the file gives, but a little off where the batch is of this size."""

    def __init__(self, session, off_at):
        super().__init__()
        self.session, self.off_at, self.sizes = session, off_at, []

    def forward(self, features):
        self.sizes.append(len(features))
        outputs = run(self.session, features.numpy())
        score = outputs.score * np.float32(1.001 if len(features) == self.off_at else 1)
        return tuple(map(torch.from_numpy, (score, outputs.contributions, outputs.expected)))


@pytest.mark.parametrize("rows", [1, 50, 2000])
def test_a_full_batch_of_the_workers_is_verified_however_few_rows_there_are(
    sealed_path, sealed, rows, monkeypatch
):
    seen, session_run = set(), ort.InferenceSession.run

    def watched(session, names, feed):
        seen.add(len(feed["features"]))
        return session_run(session, names, feed)

    monkeypatch.setattr(ort.InferenceSession, "run", watched)
    verify(sealed_path, Counting(sealed.session, off_at=0), normal_rows(rows))
    with pytest.raises(ModelRefused, match="batches of 4096, torch and the file differ"):
        verify(sealed_path, Counting(sealed.session, off_at=4096), normal_rows(rows))

    assert {1, 7, 64, 1000, 4096} <= seen


@pytest.mark.parametrize("byte", [100, -100])
def test_an_edited_file_is_refused(sealed_path, tmp_path, byte):
    data = bytearray(sealed_path.read_bytes())
    data[byte] ^= 1
    path = tmp_path / "edited.onnx"
    path.write_bytes(data)

    with pytest.raises(ModelRefused, match=r"do not match its digest|carries no digest"):
        open_sealed(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "disk.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))

    with pytest.raises(ModelRefused, match=r"it has 2,147,483,648 bytes; at most 2,147,483,647"):
        open_sealed(path)


def test_the_digest_is_of_the_bytes_of_the_file(sealed_path, sealed):
    assert verified_digest(sealed_path.read_bytes()) == sealed.digest


def test_every_option_of_the_network_seals_and_verifies(normal_csv, tmp_path, capsys):
    """Normalisation, dropout, a refused missing value and a rate of one's own, in one export."""
    out = tmp_path / "options.onnx"
    arguments = ["--target-flag-rate", "0.01", "--name", "mine", "--version", "7"]
    arguments += QUICK[:4]
    for setting in (
        "normalisation=layer", "dropout=0.1", "activation=silu", "bottleneck=2", "hidden=16,8",
        "missing=eta:refuse", "transforms=pt:asinh,tail:standardise", "schedule=plateau",
    ):  # fmt: skip
        arguments += ["--set", setting]

    assert main(["fit", str(normal_csv), "--out", str(out), *arguments]) == 0

    model = open_sealed(out)
    assert (model.contract.name, model.contract.version) == ("mine", "7")
    assert model.contract.threshold.requested_flag_rate == 0.01
    rows = normal_rows(2, seed=8)
    rows[:] = np.nan_to_num(rows)
    rows[1, 1] = np.nan
    assert list(np.isnan(run(model.session, rows).score)) == [False, True]
    assert "10,000 false alarms per million normal events (2 in 200)" in capsys.readouterr().out


def test_holes_that_training_never_had_do_not_fill_the_alarms(tmp_path):
    """Correlations break where a missing value is taken for one; the flag rate tells."""

    def events(n, seed):
        rng = np.random.default_rng(seed)
        mixed = rng.normal(size=(n, 3)) @ np.random.default_rng(9).normal(size=(3, 8))
        return (mixed + 0.6 * rng.normal(size=(n, 8))).astype(np.float32)

    np.savez(tmp_path / "whole.npz", X=events(2000, 1))
    out = tmp_path / "model.onnx"
    flags = ["--target-flag-rate", "0.01"]
    for setting in ("epochs=1", "steps_min=600", "width=64", "stored_rows=64"):
        flags += ["--set", setting]
    assert main(["fit", str(tmp_path / "whole.npz"), "--out", str(out), *flags]) == 0
    model = open_sealed(out)
    holed = events(4000, 2)
    holed[np.random.default_rng(3).random(holed.shape) < 0.1] = np.nan

    flagged = (run(model.session, holed).score > np.float32(model.contract.threshold.value)).mean()

    # 0.01 of complete events are. Of these it was 0.028; 0.066 where holes were taken for middle
    # values, 0.071 where neighbours did not count them, 0.13 where training knew no holes either.
    assert flagged < 0.05
