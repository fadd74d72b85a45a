from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from schemas.errors import OutsideError, SettingsError
from tests.trainer.conftest import normal_rows
from trainer.seal import check_writable, golden_rows, staged


def test_a_staged_file_appears_whole_under_its_name(tmp_path):
    out = tmp_path / "model.onnx"
    with staged(out) as draft:
        draft.write_bytes(b"whole")
        assert not out.exists()

    assert out.read_bytes() == b"whole"
    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [out]


def test_a_failure_leaves_what_stood_there_before(tmp_path):
    out = tmp_path / "model.onnx"
    out.write_bytes(b"old")

    def fail():
        with staged(out) as draft:
            draft.write_bytes(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_that_does_not_let_us_is_the_worlds_fault(tmp_path):
    def write():
        with staged(tmp_path / "absent" / "model.onnx"):
            pass

    with pytest.raises(OutsideError, match="cannot be written: No such file"):
        write()


def test_a_place_that_cannot_take_the_model_is_found_out_before_training(tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    for name, message in [
        ("model.pt", r"ends in \.onnx"),
        ("absent/model.onnx", "there is no folder"),
        ("folder.onnx", "is a folder"),
    ]:
        with pytest.raises(SettingsError, match=message):
            check_writable(tmp_path / name)
    if os.getuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(SettingsError, match="may not be written to"):
            check_writable(tmp_path / "model.onnx")


@pytest.mark.parametrize("n", [1, 30, 500])
@pytest.mark.parametrize("width", [1, 6])
def test_golden_rows_show_every_kind_of_row(n, width):
    rows = golden_rows(normal_rows(n)[:, :width])

    assert rows.dtype == np.float32
    assert np.isnan(rows).all(axis=1).any()
    assert np.isinf(rows).any()
    assert (rows == np.finfo(np.float32).max).any()
    assert len(rows) < 100
