"""Writes the dashboards' files anew: `python -m deploy.grafana`."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.grafana.boards import BOARDS
from deploy.grafana.panels import as_json

FOLDER = Path(__file__).parent / "provisioning/dashboards"


def shipped() -> dict[Path, str]:
    """Return the text of each dashboard's file."""
    return {FOLDER / f"{board.uid}.json": as_json(board) for board in BOARDS}


if __name__ == "__main__":
    for path, text in shipped().items():
        path.write_text(text)
    sys.exit(0)
