"""The model that is fitted by default: transforms, one dense autoencoder, weights of residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from schemas.contract import MissingPolicy
from schemas.datafiles import Table
from trainer.autoencoder import Autoencoder
from trainer.data import Parts, per_feature
from trainer.fit import Curves, epochs_of, fit
from trainer.progress import watch
from trainer.scorer import Scorer, residual_weights
from trainer.settings import TrainingSettings
from trainer.transforms import Choice, FeatureTransform, Transforms, fit_transforms


@dataclass(frozen=True)
class FittedModel:
    """What goes into the graph, and how it came about."""

    scorer: Scorer
    transforms: tuple[FeatureTransform, ...]
    curves: Curves


def fit_model(
    table: Table, parts: Parts, policies: Sequence[MissingPolicy], settings: TrainingSettings
) -> FittedModel:
    """Fit the model on the fit rows; the stop rows say when to stop, and weigh the residuals.

    Raises:
        DataError: there is nothing to learn in the fit rows.
        SettingsError: the settings name a feature that is not there, or make the loss diverge.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    auto: Choice = "auto"
    choices = per_feature(settings.transforms, table.names, auto, "transforms")
    fitted = fit_transforms(table.features[parts.fit], table.names, choices)
    transforms = Transforms(fitted, settings.clip)
    network = Autoencoder(
        len(table.names),
        settings.hidden,
        settings.bottleneck,
        settings.activation,
        settings.normalisation,
        settings.dropout,
    )
    fit_rows = transforms(torch.from_numpy(table.features[parts.fit]))
    stop_rows = transforms(torch.from_numpy(table.features[parts.stop]))
    with watch(epochs_of(len(parts.fit), settings)) as watcher:
        curves = fit(network, fit_rows, stop_rows, settings, watcher)
    weights = residual_weights(transforms, network, fit_rows, stop_rows)
    refusing = [policy == "refuse" for policy in policies]
    return FittedModel(Scorer(transforms, network, weights, refusing), fitted, curves)
