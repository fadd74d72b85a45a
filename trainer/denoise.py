"""The denoiser's training loop.

The network is shown an event with noise on it and asked for the event. The noise level is drawn
for each row, log-uniform between two limits, and not told to the network; the squared error is
weighted by (1 + sigma^2) / sigma^2, so that all levels count about alike. Shown a clean event, it
moves it towards where normal events are dense, and the residual is how far.

Half of the rows also lose a random share of their values, up to `HOLES_MAX`, to the middle of the
fit rows, as missing ones do when they are scored: the network learns to do without them.

A fixed number of steps under one cycle of the learning rate (Smith and Topin, Super-convergence,
2018) ends at rest: there is no early stopping, and so no held-out row is used up for it.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from schemas.errors import SettingsError
from trainer.checkpoint import State, Training
from trainer.fit import Curves
from trainer.progress import Watcher
from trainer.rows import Batches, TrainingRows
from trainer.settings import TrainingSettings
from trainer.transforms import Prepared

# In prepared units, where a feature's deviation is 1. Noise levels of a single size were worse
# (85.8 to 90.3 in mean AUC of nine tabular sets, against 91.4), larger ones no better.
NOISE_MIN, NOISE_MAX = 0.05, 2.0
LEARNING_RATE = 2e-3
WARM_UP_SHARE = 0.1
HOLES_MAX = 0.5
# A curve's point is an average over so many steps; noise makes single steps mean little.
POINTS = 40


def denoising_network(columns: int, width: int) -> nn.Module:
    """Return columns -> width, three times SiLU -> columns, without a bottleneck."""
    widths = [columns, width, width, width]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, columns))


def fit_denoiser(
    network: nn.Module,
    rows: TrainingRows,
    held_out: Prepared,
    steps: int,
    settings: TrainingSettings,
    watcher: Watcher,
    place: Training,
) -> Curves:
    """Train `network` in place, leave it in eval mode, and return its loss curves.

    `place` is where an interrupted training has left its state, and this one leaves its own.

    Raises:
        SettingsError: the loss is no longer finite.
    """
    course = _Course(network, rows, steps, settings)
    begun = place.begun()
    if begun is not None:
        course.resume(begun)
    network.train()
    while course.step < steps:
        course.take_step()
        if course.step * POINTS // steps > len(course.training):
            course.training.append(float(torch.stack(course.losses).mean()))
            course.validation.append(_held_out_loss(network, held_out, settings.seed))
            course.losses = []
            if not math.isfinite(course.training[-1]):
                raise SettingsError(
                    f"the denoiser's loss is {course.training[-1]} after {course.step:,} steps; "
                    "wanted a finite number. Nothing was sealed; look for columns of wild values"
                )
            watcher.epoch_ended(len(course.training), course.training[-1], course.validation[-1])
        place.step_ended(course.state)
    network.eval()
    return Curves(tuple(course.training), tuple(course.validation), len(course.training))


class _Course:
    """Where a training stands, and all that it takes to go on from there."""

    def __init__(
        self, network: nn.Module, rows: TrainingRows, steps: int, settings: TrainingSettings
    ) -> None:
        self._network = network
        self._draws = torch.Generator().manual_seed(settings.seed)
        self._optimizer = AdamW(network.parameters(), lr=LEARNING_RATE)
        # Two steps up at least, however few there are.
        rising = max(WARM_UP_SHARE, min(0.5, 2 / steps))
        self._rate = OneCycleLR(self._optimizer, LEARNING_RATE, total_steps=steps, pct_start=rising)
        size = min(settings.batch_size, len(rows))
        edges = range(0, len(rows) + 1, size)  # The rest of a pass is left out.
        self._batches = Batches(rows, edges, self._draws)
        self.step = 0
        self.losses: list[Tensor] = []
        self.training: list[float] = []
        self.validation: list[float] = []

    def take_step(self) -> None:
        batch = self._batches.next()
        self._optimizer.zero_grad()
        error = denoising_loss(self._network, batch.network, batch.present, self._draws)
        error.backward()  # type: ignore[no-untyped-call]  # torch's own lack.
        self._optimizer.step()
        self._rate.step()
        self.losses.append(error.detach())
        self.step += 1

    def state(self) -> State:
        """Return what a checkpoint keeps."""
        return {
            "step": self.step,
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rate": self._rate.state_dict(),
            "batches": self._batches.state(),
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "training": self.training,
            "validation": self.validation,
        }

    def resume(self, state: State) -> None:
        """Go to where `state` was taken."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._rate.load_state_dict(state["rate"])
        self._batches.resume(state["batches"])
        self.step, self.losses = state["step"], [*state["losses"].unbind()]
        self.training, self.validation = state["training"], state["validation"]


def denoising_loss(
    network: nn.Module, x: Tensor, present: Tensor, draws: torch.Generator
) -> Tensor:
    """Return the weighted mean squared error over the columns present, with noise drawn anew."""
    low, high = math.log(NOISE_MIN), math.log(NOISE_MAX)
    sigma = torch.exp(torch.rand(len(x), 1, generator=draws) * (high - low) + low)
    noisy = x + sigma * torch.randn(x.shape, generator=draws) * present
    share = (torch.rand(len(x), 1, generator=draws) * 2 - 1).clamp(min=0.0) * HOLES_MAX
    noisy = torch.where(torch.rand(x.shape, generator=draws) < share, torch.zeros(()), noisy)
    squared = (network(noisy) - x).square() * present
    weighted: Tensor = squared * (1.0 + sigma.square()) / sigma.square()
    return weighted.sum() / present.sum()


def _held_out_loss(network: nn.Module, rows: Prepared, seed: int) -> float:
    """Return the loss on rows that were not trained on, with the same noise each time."""
    network.eval()
    with torch.no_grad():
        draws = torch.Generator().manual_seed(seed + 1)
        loss = float(denoising_loss(network, rows.network[:4096], rows.present[:4096], draws))
    network.train()
    return loss
