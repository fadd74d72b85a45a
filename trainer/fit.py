"""The training loop.

Per epoch one pass over the fit rows in random order, then the average loss over the batches of
the fit rows and of the stop rows, without gradients. Training stops when the stop rows have not
been reconstructed better for `patience` epochs, and the best epoch's weights are kept.

The loss is the mean squared error over the features that are present, in prepared units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    ReduceLROnPlateau,
)

from schemas.errors import SettingsError
from trainer.progress import Watcher
from trainer.settings import Schedule, TrainingSettings
from trainer.transforms import Prepared

# The rate is halved after this many epochs without a better one: before patience runs out.
_PLATEAU_EPOCHS = 3


@dataclass(frozen=True)
class Curves:
    """The average loss per epoch, and the epoch (from 1) whose weights were kept."""

    training: tuple[float, ...]
    validation: tuple[float, ...]
    best_epoch: int


def epochs_of(rows: int, settings: TrainingSettings) -> int:
    """Return how many epochs there are at most: few rows make short epochs, and get more."""
    return max(settings.epochs, math.ceil(settings.steps_min / _batches(rows, settings)))


def steps_of(rows: int, settings: TrainingSettings) -> int:
    """Return how many steps those epochs have."""
    return epochs_of(rows, settings) * _batches(rows, settings)


def fit(
    network: nn.Module,
    fit_rows: Prepared,
    stop_rows: Prepared,
    settings: TrainingSettings,
    watcher: Watcher,
) -> Curves:
    """Train `network` in place and leave it, in eval mode, with the best epoch's weights.

    Raises:
        SettingsError: the loss is no longer finite; the settings made it diverge.
    """
    order = torch.Generator().manual_seed(settings.seed)
    epochs = epochs_of(len(fit_rows.network), settings)
    optimizer = Adam(network.parameters(), lr=settings.learning_rate)
    set_next_rate = schedule(settings.schedule, optimizer, epochs)
    training: list[float] = []
    validation: list[float] = []
    best_weights = deepcopy(network.state_dict())
    best_epoch = 0
    for epoch in range(1, epochs + 1):
        train(network, optimizer, fit_rows, settings, order)
        training.append(average_loss(network, fit_rows, settings))
        validation.append(average_loss(network, stop_rows, settings))
        if not math.isfinite(validation[-1]):
            raise SettingsError(
                f"the loss of epoch {epoch} is {validation[-1]}; wanted a finite number. Nothing "
                f"was sealed; try a learning_rate below {settings.learning_rate:g}"
            )
        set_next_rate(validation[-1])
        watcher.epoch_ended(epoch, training[-1], validation[-1])
        if best_epoch == 0 or validation[-1] < validation[best_epoch - 1]:
            best_weights, best_epoch = deepcopy(network.state_dict()), epoch
        elif epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(best_weights)
    network.eval()
    return Curves(tuple(training), tuple(validation), best_epoch)


def train(
    network: nn.Module,
    optimizer: Optimizer,
    rows: Prepared,
    settings: TrainingSettings,
    order: torch.Generator,
) -> None:
    """Make one pass over the rows in random order."""
    network.train()
    n = len(rows.network)
    # Nearly equal batches: a last one of a single row would break batch normalisation.
    for batch in torch.randperm(n, generator=order).tensor_split(_batches(n, settings)):
        optimizer.zero_grad()
        error = loss(network, rows.network[batch], rows.present[batch])
        error.backward()  # type: ignore[no-untyped-call]  # torch's own lack.
        optimizer.step()


def average_loss(network: nn.Module, rows: Prepared, settings: TrainingSettings) -> float:
    """Return the average loss per batch, in eval mode and without gradients."""
    network.eval()
    batches = _batches(len(rows.network), settings)
    with torch.no_grad():
        losses = [
            loss(network, x, present)
            for x, present in zip(
                rows.network.tensor_split(batches), rows.present.tensor_split(batches), strict=True
            )
        ]
    return float(torch.stack(losses).mean())


def loss(network: nn.Module, x: Tensor, present: Tensor) -> Tensor:
    """Return the mean squared error of the reconstruction over the features present."""
    squared: Tensor = (network(x) - x).square() * present
    return squared.sum() / present.sum()


def schedule(kind: Schedule, optimizer: Optimizer, epochs: int) -> Callable[[float], None]:
    """Return what to call after each epoch, with its validation loss, to set the next rate."""
    if kind == "plateau":
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=_PLATEAU_EPOCHS)
        return plateau.step
    if kind == "constant":
        return lambda _: None
    # A tenth after half of the epochs, a hundredth after three quarters; never before the first
    # epoch, and never both at once.
    half = max(1, epochs // 2)
    milestones = [half, max(half + 1, epochs * 3 // 4)]
    stepped: LRScheduler = (
        CosineAnnealingLR(optimizer, T_max=epochs)
        if kind == "cosine"
        else MultiStepLR(optimizer, milestones, gamma=0.1)
    )
    return lambda _: stepped.step()


def _batches(rows: int, settings: TrainingSettings) -> int:
    return max(1, rows // settings.batch_size)
