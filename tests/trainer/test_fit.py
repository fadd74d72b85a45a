from __future__ import annotations

import pytest
import torch
from torch import nn

from schemas.errors import SettingsError
from trainer import fit as training
from trainer.autoencoder import Autoencoder
from trainer.checkpoint import Checkpoint
from trainer.fit import (
    average_loss,
    epoch_steps_of,
    epochs_of,
    loss,
    say_if_bounded,
    schedule,
    set_next_rate,
    steps_of,
)
from trainer.progress import Reading, TimeLeft, watch
from trainer.rows import HeldRows
from trainer.settings import TrainingSettings
from trainer.transforms import Prepared


def prepared(rows):
    return Prepared(rows, rows, torch.ones_like(rows))


def rows_of(n, seed=0):
    source = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 2, generator=source)
    return prepared(base @ torch.tensor([[1.0, 2, 0, 1], [0, 1, 1, -1]]))


class Recorder:
    def __init__(self):
        self.losses = []

    def epoch_ended(self, epoch, training_loss, validation_loss):
        assert epoch == len(self.losses) + 1
        self.losses.append((training_loss, validation_loss))


def fit(network, fit_rows, stop_rows, chosen, watcher):
    place = Checkpoint().training("autoencoder")
    return training.fit(network, HeldRows(fit_rows), stop_rows, chosen, watcher, place)


def settings(**values):
    chosen = {"detectors": {"autoencoder": 1}, "epochs": 20, "steps_min": 0, "batch_size": 16}
    return TrainingSettings(**{**chosen, **values})


def test_training_lowers_the_loss_and_keeps_its_curves():
    torch.manual_seed(0)
    network, seen = Autoencoder(4, (8,), 2), Recorder()

    curves = fit(network, rows_of(200), rows_of(50, seed=1), settings(learning_rate=0.01), seen)

    assert curves.training[-1] < 0.5 * curves.training[0]
    assert list(zip(curves.training, curves.validation, strict=True)) == seen.losses
    assert not network.training


def test_the_best_epochs_weights_are_kept():
    """A rate that is far too high after a good start: later epochs are worse."""
    torch.manual_seed(0)
    network, stop = Autoencoder(4, (8,), 2), rows_of(50, seed=1)
    chosen = settings(learning_rate=0.5, schedule="constant", patience=20)

    curves = fit(network, rows_of(200), stop, chosen, Recorder())

    assert curves.best_epoch < len(curves.validation)
    best = min(curves.validation)
    assert curves.validation[curves.best_epoch - 1] == best
    assert average_loss(network, stop, chosen) == best


def test_training_stops_when_patience_runs_out():
    torch.manual_seed(0)
    chosen = settings(learning_rate=0.5, schedule="constant", patience=2, epochs=500)

    curves = fit(Autoencoder(4, (8,), 2), rows_of(200), rows_of(50, 1), chosen, Recorder())

    assert len(curves.validation) == curves.best_epoch + 2 < 500


def test_the_same_seed_gives_the_same_weights():
    def weights():
        torch.manual_seed(3)
        network = Autoencoder(4, (8,), 2, dropout=0.2, normalisation="batch")
        fit(network, rows_of(65), rows_of(20, 1), settings(epochs=3), Recorder())
        return torch.cat([part.flatten().float() for part in network.state_dict().values()])

    assert torch.equal(weights(), weights())


def test_few_rows_get_more_epochs():
    chosen = TrainingSettings(epochs=40, steps_min=2500, batch_size=128)

    assert epochs_of(100_000, chosen) == 40
    assert epochs_of(1280, chosen) == 250


def test_missing_features_do_not_count_in_the_loss():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    present = torch.tensor([[1.0, 0.0], [1.0, 1.0]])

    assert loss(lambda x: torch.zeros_like(x), x, present) == (1 + 9 + 16) / 3


def test_a_loss_that_is_not_finite_ends_the_training():
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return x * self.weight * torch.inf

    with pytest.raises(SettingsError, match="the loss of epoch 1 is nan; wanted a finite"):
        fit(Explodes(), rows_of(50), rows_of(10), settings(learning_rate=0.25), Recorder())


@pytest.mark.parametrize(
    ("rows", "epochs", "epoch_steps"),
    [
        (5, 2_500, 1),  # As few as they are, 2,500 steps.
        (20_000, 40, 156),
        (320_127, 40, 2_500),
        (10_000_000, 40, 2_500),  # A thirty-first of a pass.
    ],
)
def test_data_of_any_size_have_a_bounded_number_of_steps(rows, epochs, epoch_steps, capsys):
    default = TrainingSettings()

    assert epochs_of(rows, default) == epochs
    assert epoch_steps_of(rows, default) == epoch_steps
    assert steps_of(rows, default) == epochs * epoch_steps <= default.steps_max
    say_if_bounded(rows, default, "denoiser")
    said = capsys.readouterr().err
    if rows < 10_000_000:
        assert said == ""
    else:
        assert said.startswith("denoiser: 100,000 steps, 1.3 passes over the 10,000,000 fit rows; ")


def test_a_bound_below_the_number_of_epochs_makes_fewer_of_them():
    few = TrainingSettings(epochs=40, steps_max=7)

    assert (epochs_of(1000, few), epoch_steps_of(1000, few), steps_of(1000, few)) == (7, 1, 7)


@pytest.mark.parametrize(
    ("epoch", "now_s", "said"),
    [
        (11, 1.0, ""),  # 9 s are not worth a word.
        (11, 2.0, "; 18 s left"),
        (12, 22.0, "; 88 s left"),
        (12, 200.0, "; 13 min left"),
        (20, 200.0, ""),
    ],
)
def test_the_time_left_counts_from_where_the_training_went_on(epoch, now_s, said):
    left = TimeLeft(epochs=20)

    assert left.after(10, 0.0) == ""
    assert left.after(epoch, now_s) == said


def test_reading_is_told_every_few_seconds(capsys):
    clock = iter([100.0, 104.0, 110.0, 112.0, 121.0])
    reading = Reading(clock.__next__)

    for rows in (4, 10_000, 12_000, 21_000):
        reading.told(rows)

    assert capsys.readouterr().err.splitlines() == [
        "10,000 rows read, 1,000 a second",
        "21,000 rows read, 1,000 a second",
    ]


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("step", [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("cosine", [1, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]),
        ("plateau", [1, 1, 1, 1, 1, 0.5, 0.5, 0.5]),
    ],
)
def test_each_schedule_sets_the_rates_that_it_promises(kind, rates):
    assert rates_of(kind, epochs=8) == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize("rates", [[1], [1, 0.1], [1, 0.1, 0.01], [1, 1, 0.1, 0.01]])
def test_steps_come_after_the_first_epoch_and_one_by_one(rates):
    assert rates_of("step", epochs=len(rates)) == pytest.approx(rates)


def rates_of(kind, epochs):
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    rate, seen = schedule(kind, optimizer, epochs), []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        set_next_rate(rate, 1.0)  # Never better than the first: a plateau from there.
    return seen


def test_progress_off_a_terminal_is_some_twenty_lines(capsys):
    with watch(epochs=1000) as lines:
        for epoch in range(1, 1001):
            lines.epoch_ended(epoch, 0.5, 0.25)

    written = capsys.readouterr().err.splitlines()
    assert 20 <= len(written) <= 22
    assert written[-1] == "epoch 1000/1000: loss 0.5000, on held-out events 0.2500"


def test_progress_says_what_its_numbers_count(capsys):
    with watch(40, "denoiser, {}/{} of its training") as lines:
        lines.epoch_ended(1, 0.5, 0.25)

    assert capsys.readouterr().err.startswith("denoiser, 1/40 of its training: loss 0.5000, ")


@pytest.mark.parametrize("ended", [1, 150, 173])
def test_the_last_epoch_is_shown_once_also_after_an_early_stop(ended, capsys):
    with watch(epochs=1000) as lines:
        for epoch in range(1, ended + 1):
            lines.epoch_ended(epoch, 0.5, 0.25)

    written = capsys.readouterr().err.splitlines()
    assert written[-1].startswith(f"epoch {ended}/1000: ")
    assert len(set(written)) == len(written)
