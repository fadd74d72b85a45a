"""Seals a model of the shipped collisions, unless one of the same events and settings is there.

What the stack's one-shot trainer runs: `python -m demo.train_once MODEL.onnx [FLAG OF FIT...]`.
The model's version is the digest of all that it is made of, so the file itself says whether it is
the one that is wanted. A training that was cut goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from demo import events
from schemas.contract import ModelRefused
from trainer.__main__ import main as trainer
from trainer.runtime import open_sealed


def main(arguments: Sequence[str]) -> int:
    """Train if need be; return the trainer's exit code."""
    model, flags = Path(arguments[0]), tuple(arguments[1:])
    wanted = made_of(flags)
    if version_of(model) == wanted:
        print(f"{model} holds version {wanted}, of the same events and settings; nothing to train")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        ordinary = Path(folder) / "ordinary.npz"
        events.write_training_file(events.load(), ordinary)
        return trainer(["fit", str(ordinary), "--out", str(model), "--version", wanted, *flags])


def made_of(flags: Sequence[str]) -> str:
    """Return the version of a model that is trained on the shipped collisions with these flags."""
    digest = hashlib.sha256(events.SHIPPED.read_bytes())
    digest.update("\x00".join((version("odradek"), version("torch"), *flags)).encode())
    return digest.hexdigest()[:12]


def version_of(model: Path) -> str | None:
    """Return the version of a sealed model; None where there is no file that is one."""
    try:
        return open_sealed(model).contract.version
    except ModelRefused:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
