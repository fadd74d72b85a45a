from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from schemas.errors import OutsideError, SettingsError
from tests.trainer.conftest import normal_rows
from trainer.data import rows_in_common
from trainer.seal import check_writable, golden_rows, staged
from trainer.transforms import fit_transforms


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


@pytest.mark.parametrize("width", [1, 6, 40])
def test_golden_rows_show_every_kind_of_row(width):
    data = normal_rows(300)[:, np.arange(width) % 6]
    fitted = fit_transforms(data, [str(n) for n in range(width)], ["auto"] * width)

    rows = golden_rows(fitted)

    assert rows.dtype == np.float32
    assert np.isnan(rows).all(axis=1).any()
    assert np.isinf(rows).any()
    assert (rows == np.finfo(np.float32).max).any()
    # Ordinary ones: within a few widths of the centres, none of them at an extreme.
    centre, wide = (np.array([getattr(f, name) for f in fitted]) for name in ("centre", "width"))
    assert (np.abs(rows - centre) <= 15 * wide).all(axis=1).sum() >= 20
    assert len(rows) < 100
    assert golden_rows(fitted).tobytes() == rows.tobytes()


def test_no_row_of_the_users_is_golden():
    data = normal_rows(2000)

    golden = golden_rows(fit_transforms(data, list("abcdef"), ["auto"] * 6))

    assert rows_in_common(data, golden) == rows_in_common(golden, data) == 0
    # Nor with one of its features blanked out or set to an extreme.
    for column in range(5):
        others = [place for place in range(6) if place != column]
        assert rows_in_common(np.nan_to_num(data[:, others]), np.nan_to_num(golden[:, others])) == 0
