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
from trainer.fit import Curves
from trainer.progress import Watcher
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
    rows: Prepared,
    held_out: Prepared,
    steps: int,
    settings: TrainingSettings,
    watcher: Watcher,
) -> Curves:
    """Train `network` in place, leave it in eval mode, and return its loss curves.

    Raises:
        SettingsError: the loss is no longer finite.
    """
    draws = torch.Generator().manual_seed(settings.seed)
    optimizer = AdamW(network.parameters(), lr=LEARNING_RATE)
    # Two steps up at least, however few there are.
    rising = max(WARM_UP_SHARE, min(0.5, 2 / steps))
    rate = OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=rising)
    training: list[float] = []
    validation: list[float] = []
    order, place = torch.empty(0, dtype=torch.int64), 0
    losses: list[Tensor] = []
    network.train()
    for step in range(1, steps + 1):
        if place + settings.batch_size > len(order):  # The rest of a pass is left out.
            order, place = torch.randperm(len(rows.network), generator=draws), 0
        batch = order[place : place + settings.batch_size]
        place += settings.batch_size
        optimizer.zero_grad()
        error = denoising_loss(network, rows.network[batch], rows.present[batch], draws)
        error.backward()  # type: ignore[no-untyped-call]  # torch's own lack.
        optimizer.step()
        rate.step()
        losses.append(error.detach())
        if step * POINTS // steps > len(training):
            training.append(float(torch.stack(losses).mean()))
            validation.append(_held_out_loss(network, held_out, settings.seed))
            losses = []
            if not math.isfinite(training[-1]):
                raise SettingsError(
                    f"the denoiser's loss is {training[-1]} after {step:,} steps; wanted a finite "
                    "number. Nothing was sealed; look for columns of wild values"
                )
            watcher.epoch_ended(len(training), training[-1], validation[-1])
    network.eval()
    return Curves(tuple(training), tuple(validation), len(training))


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
