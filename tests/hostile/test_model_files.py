"""Every hostile file is refused by its own message: opened, checked, and put in a running place."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from schemas.contract import ModelRefused
from schemas.errors import SettingsError
from tests.hostile.files import HOSTILE, good
from worker import offline
from worker.model import ModelOptions, open_model
from worker.model_slot import ModelSlot

OPTIONS = ModelOptions("cpu", batch_max=8)
built = functools.cache(lambda name: HOSTILE[name][0]())


def test_the_file_that_they_are_made_from_is_good():
    assert open_model(good(), OPTIONS).contract.name == "stand-in"


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_not_opened(name):
    with pytest.raises(ModelRefused) as refused:
        open_model(built(name), OPTIONS)
    assert HOSTILE[name][1] in str(refused.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_check_says_so_and_exits_1(name, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(built(name))
    assert offline.check([str(path)]) == 1
    out, err = capsys.readouterr()
    assert f"{path} is refused: " in out
    assert HOSTILE[name][1] in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize("name", HOSTILE)
def test_a_running_worker_keeps_the_model_it_has(name, tmp_path, caplog):
    path = tmp_path / "model.onnx"
    path.write_bytes(good())
    loads = []
    slot = ModelSlot(
        path,
        lambda sealed: open_model(sealed, OPTIONS),
        check_interval_s=1.0,
        allow_contract_change=False,
        on_load=lambda outcome, model: loads.append((outcome, model.digest)),
    )
    first = slot.current
    (tmp_path / "new").write_bytes(built(name))
    (tmp_path / "new").replace(path)
    slot.refresh(10.0)
    assert slot.current is first
    assert loads == [("accepted", first.digest), ("refused", first.digest)]
    assert HOSTILE[name][1] in caplog.text
    assert "Still scoring with stand-in 1" in caplog.text


@pytest.mark.parametrize("name", ["empty", "an edited weight", "a frozen batch"])
def test_a_worker_does_not_start_with_it(name, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(built(name))
    with pytest.raises(SettingsError, match=r"was refused: .* Not starting"):
        ModelSlot(
            path,
            lambda sealed: open_model(sealed, OPTIONS),
            check_interval_s=1.0,
            allow_contract_change=False,
            on_load=lambda *_: None,
        )


def check(path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "check", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_that_is_absent_is_one_line_and_exit_1(tmp_path):
    done = check(tmp_path / "absent.onnx")
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "is refused: it cannot be read (No such file or directory)" in done.stdout
    assert not done.stderr


def test_a_bad_file_is_one_line_and_exit_1_in_a_process_of_its_own(tmp_path):
    """onnxruntime writes to stderr by itself; it must not drown the message."""
    path = tmp_path / "model.onnx"
    path.write_bytes(built("an unknown operator"))
    done = check(path)
    assert done.returncode == 1
    assert "onnxruntime cannot open it" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_folder_is_refused(tmp_path):
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "it cannot be read (Is a directory)" in done.stdout
