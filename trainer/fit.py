"""The training loop.

Per epoch one pass over the fit rows in random order, then the average loss over the batches of
the fit rows and of the stop rows, without gradients. Training stops when the stop rows have not
been reconstructed better for `patience` epochs, and the best epoch's weights are kept.

Of so many rows that their epochs would take more than `steps_max` steps an epoch is only a part of
a pass, and the next one goes on behind it: the number of epochs, the schedule and the patience
mean the same for data of any size.

The loss is the mean squared error over the features that are present, in prepared units.
"""

from __future__ import annotations

import math
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
from trainer.checkpoint import State, Training
from trainer.progress import Watcher, say
from trainer.rows import Batches, TrainingRows
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
    epochs = max(settings.epochs, math.ceil(settings.steps_min / _batches(rows, settings)))
    return min(epochs, settings.steps_max)


def steps_of(rows: int, settings: TrainingSettings) -> int:
    """Return how many steps those epochs have."""
    return epochs_of(rows, settings) * epoch_steps_of(rows, settings)


def epoch_steps_of(rows: int, settings: TrainingSettings) -> int:
    """Return how many steps an epoch has: a pass, or what `steps_max` leaves it of one."""
    return min(_batches(rows, settings), settings.steps_max // epochs_of(rows, settings))


def say_if_bounded(rows: int, settings: TrainingSettings, what: str) -> None:
    """Say so where `steps_max` holds a training to less than its epochs would be."""
    steps, batches = steps_of(rows, settings), _batches(rows, settings)
    if steps < settings.epochs * batches:
        say(
            f"{what}: {steps:,} steps, {steps / batches:.2g} passes over the {rows:,} fit rows; "
            f"--set steps_max=N allows more than {settings.steps_max:,}"
        )


def fit(
    network: nn.Module,
    fit_rows: TrainingRows,
    stop_rows: Prepared,
    settings: TrainingSettings,
    watcher: Watcher,
    place: Training,
) -> Curves:
    """Train `network` in place and leave it, in eval mode, with the best epoch's weights.

    `place` is where an interrupted training has left its state, and this one leaves its own.

    Raises:
        SettingsError: the loss is no longer finite; the settings made it diverge.
    """
    course = _Course(network, fit_rows, settings)
    begun = place.begun()
    if begun is not None:
        course.resume(begun)
    while not course.ended:
        network.train()
        while course.step < course.epoch * course.epoch_steps:
            _step(network, course.optimizer, course.batches.next())
            course.step += 1
            place.step_ended(course.state)
        training = average_loss(network, fit_rows.shown, settings)
        validation = average_loss(network, stop_rows, settings)
        if not math.isfinite(validation):
            raise SettingsError(
                f"the loss of epoch {course.epoch} is {validation}; wanted a finite number. "
                f"Nothing was sealed; try a learning_rate below {settings.learning_rate:g}"
            )
        watcher.epoch_ended(course.epoch, training, validation)
        course.epoch_ended(training, validation)
    network.load_state_dict(course.best_weights)
    network.eval()
    return Curves(tuple(course.training), tuple(course.validation), course.best_epoch)


class _Course:
    """Where a training stands, and all that it takes to go on from there."""

    def __init__(self, network: nn.Module, rows: TrainingRows, settings: TrainingSettings) -> None:
        self._network = network
        self._patience = settings.patience
        self.epochs = epochs_of(len(rows), settings)
        self.epoch_steps = epoch_steps_of(len(rows), settings)
        self.optimizer = Adam(network.parameters(), lr=settings.learning_rate)
        self._rate = schedule(settings.schedule, self.optimizer, self.epochs)
        draws = torch.Generator().manual_seed(settings.seed)
        # Nearly equal batches: a last one of a single row would break batch normalisation.
        edges = even_edges(len(rows), _batches(len(rows), settings))
        self.batches = Batches(rows, edges, draws)
        self.epoch, self.step = 1, 0
        self.training: list[float] = []
        self.validation: list[float] = []
        self.best_weights, self.best_epoch = deepcopy(network.state_dict()), 0

    @property
    def ended(self) -> bool:
        stale = self.best_epoch and len(self.validation) - self.best_epoch >= self._patience
        return self.epoch > self.epochs or bool(stale)

    def epoch_ended(self, training: float, validation: float) -> None:
        set_next_rate(self._rate, validation)
        self.training.append(training)
        self.validation.append(validation)
        if self.best_epoch == 0 or validation < self.validation[self.best_epoch - 1]:
            self.best_weights = deepcopy(self._network.state_dict())
            self.best_epoch = self.epoch
        self.epoch += 1

    def state(self) -> State:
        """Return what a checkpoint keeps."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "network": self._network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rate": self._rate.state_dict() if self._rate else {},
            "batches": self.batches.state(),
            "dropout": torch.get_rng_state(),
            "training": self.training,
            "validation": self.validation,
            "best_weights": self.best_weights,
            "best_epoch": self.best_epoch,
        }

    def resume(self, state: State) -> None:
        """Go to where `state` was taken."""
        self._network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._rate:
            self._rate.load_state_dict(state["rate"])
        self.batches.resume(state["batches"])
        self.step, self.epoch = state["step"], state["epoch"]
        self.training, self.validation = state["training"], state["validation"]
        self.best_weights, self.best_epoch = state["best_weights"], state["best_epoch"]
        torch.set_rng_state(state["dropout"])


def _step(network: nn.Module, optimizer: Optimizer, batch: Prepared) -> None:
    optimizer.zero_grad()
    error = loss(network, batch.network, batch.present)
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


def schedule(kind: Schedule, optimizer: Optimizer, epochs: int) -> LRScheduler | None:
    """Return what sets the next rate after each epoch; None leaves it constant."""
    if kind == "constant":
        return None
    if kind == "plateau":
        return ReduceLROnPlateau(optimizer, factor=0.5, patience=_PLATEAU_EPOCHS)
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, T_max=epochs)
    # A tenth after half of the epochs, a hundredth after three quarters; never before the first
    # epoch, and never both at once.
    half = max(1, epochs // 2)
    return MultiStepLR(optimizer, [half, max(half + 1, epochs * 3 // 4)], gamma=0.1)


def set_next_rate(rate: LRScheduler | None, validation_loss: float) -> None:
    """Set the rate of the next epoch after one of this validation loss."""
    if isinstance(rate, ReduceLROnPlateau):
        rate.step(validation_loss)
    elif rate is not None:
        rate.step()


def even_edges(rows: int, batches: int) -> list[int]:
    """Return where a pass over `rows` is cut into nearly equal batches."""
    size, longer = divmod(rows, batches)
    return [batch * size + min(batch, longer) for batch in range(batches + 1)]


def _batches(rows: int, settings: TrainingSettings) -> int:
    return max(1, rows // settings.batch_size)
