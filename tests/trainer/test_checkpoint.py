"""A training that was killed goes on from its checkpoint, and ends as if it had not been."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch

from schemas.errors import OutsideError
from tests.trainer.conftest import EPOCH
from trainer.__main__ import main
from trainer.autoencoder import Autoencoder
from trainer.checkpoint import Checkpoint, Stopped, _head
from trainer.denoise import denoising_network, fit_denoiser
from trainer.fit import fit
from trainer.rows import HeldRows
from trainer.settings import TrainingSettings
from trainer.transforms import Prepared

MADE_OF = {"rows": "1", "settings": "2"}
STEPS = 80  # Of the denoiser; a curve has a point every second.


def rows_of(n, seed):
    rows = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return Prepared(rows, rows, torch.ones_like(rows))


class Killed(Exception):
    pass


class KilledAt:
    """Ends a training in the middle, as a kill would, once so many epochs are over."""

    def __init__(self, epochs=None):
        self._epochs = epochs
        self.seen = []

    def epoch_ended(self, epoch, *_):
        self.seen.append(epoch)
        if epoch == self._epochs:
            raise Killed


def autoencoder(checkpoint, watcher, **values):
    chosen = {"detectors": {"autoencoder": 1}, "epochs": 8, "steps_min": 0, "batch_size": 16}
    torch.manual_seed(0)
    network = Autoencoder(4, (8,), 2, normalisation="batch", dropout=0.2)
    fit_rows, stop_rows = HeldRows(rows_of(100, 0)), rows_of(40, 1)
    settings = TrainingSettings(**{**chosen, **values})
    place = checkpoint.training("autoencoder", b"these rows")
    return network, fit(network, fit_rows, stop_rows, settings, watcher, place)


def denoiser(checkpoint, watcher, **values):
    torch.manual_seed(0)
    network = denoising_network(4, 16)
    fit_rows, held_out = HeldRows(rows_of(300, 0)), rows_of(40, 1)
    place, settings = checkpoint.training("denoiser", b"these rows"), TrainingSettings(**values)
    return network, fit_denoiser(network, fit_rows, held_out, STEPS, settings, watcher, place)


KINDS = [
    *((autoencoder, {"schedule": name}) for name in ("constant", "step", "cosine", "plateau")),
    # An epoch of two steps of a pass of six, so that a kill comes within a pass.
    (autoencoder, {"steps_max": 16}),
    (denoiser, {"seed": 3}),
]


@pytest.mark.parametrize(("train", "values"), KINDS)
def test_a_killed_training_goes_on_to_the_same_weights_and_curves(train, values, tmp_path, capsys):
    path = tmp_path / "m.onnx.checkpoint"
    network, curves = train(Checkpoint(), KilledAt(), **values)
    with pytest.raises(Killed):
        train(Checkpoint(path, MADE_OF, every_s=0), KilledAt(5), **values)

    watcher = KilledAt()
    again, same_curves = train(Checkpoint(path, MADE_OF), watcher, **values)

    assert same_curves == curves
    ours, theirs = network.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert watcher.seen[0] == 5  # The kill came before the fifth was saved.
    assert f"{train.__name__}: goes on after step " in capsys.readouterr().err


def test_what_was_made_of_other_things_is_not_taken_up_and_that_is_said(tmp_path, capsys):
    path = tmp_path / "m.onnx.checkpoint"
    with pytest.raises(Killed):
        denoiser(Checkpoint(path, MADE_OF, every_s=0), KilledAt(5))

    for made_of, said in [
        (MADE_OF | {"rows": "3"}, "is of other rows; training starts anew and replaces it"),
        (MADE_OF | {"rows": "3", "settings": "4"}, "is of other rows and settings; "),
    ]:
        watcher = KilledAt()
        denoiser(Checkpoint(path, made_of), watcher)
        assert said in capsys.readouterr().err
        assert watcher.seen[0] == 1
    # Another network of the same run does not take it for its own.
    assert Checkpoint(path, MADE_OF).training("denoiser", b"other rows").begun() is None


def test_a_file_that_is_no_checkpoint_is_said_to_be_none(tmp_path, capsys):
    path = tmp_path / "m.onnx.checkpoint"
    for content in (b"", b"rubbish\n", b"rubbish\n" * 20, pickle.dumps("another's")):
        path.write_bytes(content)

        assert Checkpoint(path, MADE_OF).training("denoiser").begun() is None
        assert "no checkpoint that can be read; training starts anew" in capsys.readouterr().err


class MakesFolder:
    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return os.mkdir, (self._path,)


def test_a_checkpoint_runs_nothing_whatever_it_holds(tmp_path):
    path, made = tmp_path / "m.onnx.checkpoint", tmp_path / "made"
    buffer = io.BytesIO()
    torch.save(MakesFolder(made), buffer)
    path.write_bytes(_head(buffer.getvalue()) + buffer.getvalue())

    with pytest.raises(pickle.UnpicklingError):
        Checkpoint(path, MADE_OF)
    assert not made.exists()
    buffer.seek(0)
    torch.load(buffer, weights_only=False)  # So it would have run.
    assert made.exists()


@pytest.mark.parametrize("damage", ["other weights", "cut short"])
def test_of_a_damaged_checkpoint_nothing_is_taken_up(damage, tmp_path, capsys):
    path = tmp_path / "m.onnx.checkpoint"
    checkpoint = Checkpoint(path, MADE_OF)
    checkpoint.save(checkpoint.training("norm")._key, {"step": 1, "weights": torch.ones(1000)})
    whole = path.read_bytes()
    ones = torch.ones(1000).numpy().tobytes()
    assert whole.count(ones) == 1
    path.write_bytes(
        whole.replace(ones, bytes(len(ones))) if damage == "other weights" else whole[:-100]
    )

    assert Checkpoint(path, MADE_OF).training("norm").begun() is None
    assert "no checkpoint that can be read; training starts anew" in capsys.readouterr().err


def test_a_folder_in_the_checkpoints_place_is_named_with_what_to_do(tmp_path):
    with pytest.raises(OutsideError, match=r"Is a directory; wanted a checkpoint .* move it away"):
        Checkpoint(tmp_path, MADE_OF)


def test_two_fits_that_save_to_the_same_file_do_not_end_each_other(tmp_path):
    path = tmp_path / "m.onnx.checkpoint"

    def saves(number):
        checkpoint = Checkpoint(path, MADE_OF)
        for step in range(100):
            checkpoint.save("key", {"step": step, "weights": torch.full((50_000,), number)})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(saves, (1, 2)))
    # Whose save it holds, or that it holds none, is either's luck.
    Checkpoint(path, MADE_OF).remove()
    assert not [*tmp_path.iterdir()]


def test_a_draft_that_a_kill_left_goes_with_the_checkpoint(tmp_path):
    path = tmp_path / "m.onnx.checkpoint"
    path.with_name(".m.onnx.checkpoint.draft").write_bytes(b"half a fi")

    Checkpoint(path, MADE_OF).remove()
    assert not [*tmp_path.iterdir()]


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Checkpoint(tmp_path / "m.checkpoint", MADE_OF).heeding_signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not [*tmp_path.iterdir()]


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_the_training_goes_on(
    tmp_path, capsys
):
    checkpoint = Checkpoint(tmp_path / "absent" / "m.checkpoint", MADE_OF, every_s=0)

    denoiser(checkpoint, KilledAt())

    said = capsys.readouterr().err
    assert said.count("m.checkpoint cannot be written: No such file") == 1
    assert "The training goes on" in said


def test_a_stop_whose_place_cannot_be_kept_says_so(tmp_path):
    checkpoint = Checkpoint(tmp_path / "absent" / "m.checkpoint", MADE_OF, every_s=0)

    def told_to_stop() -> None:
        with checkpoint.heeding_signals():
            signal.raise_signal(signal.SIGTERM)
            denoiser(checkpoint, KilledAt())

    with pytest.raises(OutsideError, match=r"m\.checkpoint cannot be written.*for it was told to"):
        told_to_stop()


def test_a_signal_ends_a_training_after_its_step_and_the_place_is_kept(tmp_path):
    path = tmp_path / "m.checkpoint"
    checkpoint, before = Checkpoint(path, MADE_OF), signal.getsignal(signal.SIGTERM)

    class Told(KilledAt):
        def epoch_ended(self, epoch, *_):
            super().epoch_ended(epoch)
            if epoch == 4:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as stopped, checkpoint.heeding_signals():
        denoiser(checkpoint, Told())

    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert Checkpoint(path, MADE_OF).training("denoiser", b"these rows").begun()["step"] == 8


def test_a_signal_after_the_training_keeps_the_trained_network(tmp_path):
    path = tmp_path / "m.checkpoint"
    checkpoint = Checkpoint(path, MADE_OF)

    checkpoint.training("norm").finish({"weights": torch.ones(2)})
    with pytest.raises(Stopped), checkpoint.heeding_signals():
        signal.raise_signal(signal.SIGTERM)

    kept = Checkpoint(path, MADE_OF).training("norm").finished()
    assert kept is not None
    assert kept["weights"].tolist() == [1, 1]


def command(data, out):
    # Two networks: the first is trained by the time of the kill, or is not; both must do.
    some = ("detectors=denoiser,autoencoder", "epochs=30", "steps_min=300", "width=8", "hidden=8")
    sets = [part for one in some for part in ("--set", one)]
    return ["fit", str(data), "--out", str(out), "--name", "m", *sets]


def started(arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *arguments, "--checkpoint-s", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_fit_that_is_told_to_stop_and_then_killed_seals_the_same_bytes(
    tmp_path, normal_csv, monkeypatch, capsys
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    whole, out = tmp_path / "whole.onnx", tmp_path / "killed.onnx"
    checkpoint = out.with_name("killed.onnx.checkpoint")
    assert main(command(normal_csv, whole)) == 0

    with told_to_stop_once_there_is(checkpoint):
        assert main([*command(normal_csv, out), "--checkpoint-s", "0"]) == 143
    said = capsys.readouterr().err
    assert f"stopped; {checkpoint} keeps the place: the same command goes on there" in said
    stood = checkpoint.read_bytes()

    killed = started(command(normal_csv, out))
    while checkpoint.read_bytes() == stood and killed.poll() is None:
        time.sleep(0.01)
    killed.kill()
    assert "goes on after step" in killed.communicate()[1]
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()

    capsys.readouterr()
    assert main(command(normal_csv, out)) == 0
    assert "goes on after step" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.onnx", "whole.onnx"]


@contextmanager
def told_to_stop_once_there_is(path):
    """Have SIGTERM come in the middle of a training in this process, whose torch is loaded."""

    def look(*_):
        if path.exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
