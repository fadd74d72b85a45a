"""What the end-to-end tests share: a sealed model in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import a_sealed_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(a_sealed_model())
    return path
