"""The denoiser learns where normal events are dense."""

from __future__ import annotations

import pytest
import torch

from schemas.errors import SettingsError
from trainer.checkpoint import Checkpoint
from trainer.denoise import POINTS, denoising_network, fit_denoiser
from trainer.progress import Lines
from trainer.rows import HeldRows
from trainer.settings import TrainingSettings
from trainer.transforms import Prepared


def a_line(n, seed=0):
    """Rows about a line in four dimensions."""
    source = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 1, generator=source) @ torch.tensor([[1.0, 1, -1, -1]])
    rows = rows + 0.05 * torch.randn(n, 4, generator=source)
    return Prepared(rows, rows, torch.ones_like(rows))


def trained(rows=None, seed=0):
    torch.manual_seed(seed)
    network = denoising_network(4, 32)
    rows = a_line(1000) if rows is None else rows
    settings = TrainingSettings(seed=seed)
    held_out = a_line(200, seed=1)
    place = Checkpoint().training("denoiser")
    watcher = Lines(POINTS)
    curves = fit_denoiser(network, HeldRows(rows), held_out, 400, settings, watcher, place)
    return network, curves


def test_events_are_given_back_and_what_is_off_their_line_is_drawn_to_it():
    network, curves = trained()

    with torch.no_grad():
        near = a_line(200, seed=2).exact
        off = near + torch.tensor([1.5, -1.5, 0, 0])
        residual_near = (network(near) - near).square().mean()
        residual_off = (network(off) - off).square().mean()

    assert residual_off > 20 * residual_near
    assert len(curves.training) == len(curves.validation) == POINTS
    assert curves.best_epoch == POINTS
    assert curves.validation[-1] < 0.7 * curves.validation[0]
    assert not network.training


def test_the_same_seed_gives_the_same_weights_and_another_gives_others():
    first, again, other = (trained(seed=seed)[0].state_dict() for seed in (0, 0, 1))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_fewer_rows_than_a_batch_are_enough():
    rows = Prepared(*(part[:20] for part in a_line(20)))

    assert len(trained(rows)[1].training) == POINTS


def test_a_loss_that_is_not_finite_ends_the_training():
    rows = a_line(500)
    rows.network[3] = float("inf")

    with pytest.raises(SettingsError, match="the denoiser's loss is"):
        trained(rows)
