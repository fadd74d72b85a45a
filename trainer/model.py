"""The model that is fitted: columns, transforms, detectors and what brings them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from schemas.calibration import Floats
from schemas.contract import MissingPolicy
from schemas.datafiles import Table
from schemas.digest import FILE_BYTES_MAX
from schemas.errors import DataError, SettingsError
from trainer.checkpoint import Checkpoint, Training
from trainer.columns import Columns, fit_category, known_texts
from trainer.combine import SoftMaximum, Surprise
from trainer.data import Parts, per_feature, unseen_policies
from trainer.denoise import POINTS, denoising_network, fit_denoiser
from trainer.detectors import (
    Neighbours,
    Norm,
    Reconstruction,
    in_pieces,
    residual_weights,
    stored_rows,
)
from trainer.fit import Curves, epochs_of, fit, say_if_bounded, steps_of
from trainer.network import build
from trainer.progress import watch
from trainer.rows import HeldRows, StoredRows, TrainingRows, rows_max
from trainer.scorer import Combination, Refusals, Scorer
from trainer.settings import EVERY, Detector, TrainingSettings
from trainer.transforms import Choice, FeatureTransform, Prepared, Transforms, fit_transforms
from trainer.views import RankGauss, Whitened


@dataclass(frozen=True)
class FittedModel:
    """What goes into the graph, and how it came about.

    `transforms` has one entry for each feature, `curves` one for each detector with a network.
    Transforms and views were fitted to `sampled_rows` of the fit rows.
    """

    scorer: Scorer
    transforms: tuple[FeatureTransform, ...]
    curves: dict[str, Curves]
    stored_rows: int
    sampled_rows: int


@dataclass(frozen=True)
class _Rows:
    """What detectors are fitted to: prepared rows, and the columns' limits and shares.

    Networks are trained on `fit`; what looks at many rows at once sees `sample`, which is all of
    them unless they are too many (`trainer.rows`). `untrimmed` are those and as large a share of
    the dirt that was left out. `held_out` are the rows that no detector's weights are fitted to.
    """

    fit: TrainingRows
    sample: Prepared
    untrimmed: Prepared
    stop: Prepared
    held_out: Prepared
    limit: torch.Tensor
    share: npt.NDArray[np.float32]

    @property
    def varying(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.limit > 0)


def fit_model(
    table: Table,
    parts: Parts,
    policies: Sequence[MissingPolicy],
    settings: TrainingSettings,
    checkpoint: Checkpoint | None = None,
) -> FittedModel:
    """Fit the detectors on the fit rows, and bring them together on the combine rows.

    Networks go on from where `checkpoint` has them, and leave their place there.

    Raises:
        DataError: there is nothing to learn in the fit rows.
        SettingsError: the settings name a feature that is not there, ask for a network that
            cannot be built, or make the loss diverge.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    columns = Columns(known_texts(table))
    sampled = parts.fit[: rows_max(columns.width)]  # Their order is random.
    by_feature, by_column = _fit_transforms(table, table.features[sampled], columns, settings)
    transforms = Transforms(by_column, settings.clip)
    rows = _rows(table, parts, sampled, columns, transforms)
    chosen = settings.chosen_detectors()
    curves: dict[str, Curves] = {}
    trained_on = (parts.fit.tobytes(), parts.stop.tobytes(), parts.combine.tobytes())
    detectors = []
    for kind in chosen:
        if kind in ("denoiser", "autoencoder"):
            say_if_bounded(len(rows.fit), settings, kind)
        place = (checkpoint or Checkpoint()).training(kind, *trained_on)
        detectors.append(_fit_detector(kind, rows, settings, curves, place))
    stored = sum(len(one.rows) for one in detectors if isinstance(one, Neighbours))
    refusals = _refusals(table, policies, settings)
    scorer = Scorer(columns, transforms, detectors, None, refusals)
    if len(detectors) > 1:
        surprise = Surprise(_raw_scores(scorer, rows.held_out))
        combination = Combination(surprise, SoftMaximum([*chosen.values()]))
        scorer = Scorer(columns, transforms, detectors, combination, refusals)
    return FittedModel(scorer, by_feature, curves, stored, len(sampled))


def _rows(
    table: Table,
    parts: Parts,
    sampled: npt.NDArray[np.int64],
    columns: Columns,
    transforms: Transforms,
) -> _Rows:
    def prepare(rows: npt.NDArray[np.int64]) -> Prepared:
        prepared: Prepared = transforms(torch.from_numpy(columns.rows(table.features[rows])))
        return prepared

    sample = prepare(sampled)
    share = len(sampled) / max(1, len(parts.fit))
    untrimmed = sample
    if len(parts.trimmed):
        dirt = prepare(parts.trimmed[: round(share * len(parts.trimmed))])
        untrimmed = Prepared(*map(torch.cat, zip(sample, dirt, strict=True)))
    held = len(sampled) == len(parts.fit)
    return _Rows(
        fit=HeldRows(sample) if held else StoredRows(np.sort(parts.fit), prepare, sample),
        sample=sample,
        untrimmed=untrimmed,
        stop=prepare(parts.stop),
        held_out=prepare(parts.combine if len(parts.combine) else parts.stop),
        limit=transforms.limit,
        share=columns.share.numpy(),
    )


def _refusals(
    table: Table, policies: Sequence[MissingPolicy], settings: TrainingSettings
) -> Refusals:
    unseen = unseen_policies(table, settings.unseen)
    return Refusals(
        missing=tuple(policy == "refuse" for policy in policies),
        unseen=tuple(unseen.get(name) == "refuse" for name in table.names),
    )


def _fit_transforms(
    table: Table, fit_rows: Floats, columns: Columns, settings: TrainingSettings
) -> tuple[tuple[FeatureTransform, ...], list[FeatureTransform]]:
    """Return the transform of each feature, for the record, and of each column."""
    auto: Choice = "auto"
    if settings.preset == "seed" and not {*settings.transforms} <= {EVERY, *table.names}:
        raise SettingsError(
            f"--preset seed scales 57 features that are named f0 to f56, as those of an NPZ file "
            f"are; the data has {len(table.names):,}, from {table.names[0]!r} on. Nothing was "
            "trained; take --preset dense, or set transforms=auto beside it"
        )
    choices = per_feature(settings.transforms, table.names, auto, "transforms")
    for name in settings.transforms:
        if name in table.categories:
            raise SettingsError(
                f"--set transforms: the feature {name!r} is a category, whose texts have no "
                f"transform; wanted a number. Nothing was trained; leave {name}: out"
            )
    numbers = columns.numbers
    by_feature: dict[int, FeatureTransform] = {}
    by_column: list[FeatureTransform] = []
    if numbers:
        fitted = fit_transforms(
            fit_rows[:, numbers],
            [table.names[place] for place in numbers],
            [choices[place] for place in numbers],
            alone=not columns.categories,
        )
        by_feature |= zip(numbers, fitted, strict=True)
        by_column += fitted
    for place in columns.categories:
        codes = fit_rows[:, place]
        codes = codes[~np.isnan(codes)]
        if not len(codes):
            raise DataError(
                f"no fit row has a text for {table.names[place]!r}; wanted some. Leave it out with "
                f"--drop-column {table.names[place]}"
            )
        texts = len(table.categories[table.names[place]])
        by_column += fit_category(codes, texts)
        likeliest = float(np.bincount(codes.astype(np.intp)).argmax())
        by_feature[place] = FeatureTransform("category", likeliest, 1.0, 0.0, 1.0, 0.0, texts)
    return tuple(by_feature[place] for place in range(len(table.names))), by_column


def _fit_detector(
    kind: Detector,
    rows: _Rows,
    settings: TrainingSettings,
    curves: dict[str, Curves],
    place: Training,
) -> nn.Module:
    match kind:
        case "denoiser":
            _check_width(settings.width, len(rows.share))
            network = denoising_network(len(rows.share), settings.width)
            steps = steps_of(len(rows.fit), settings)

            def denoise() -> Curves:
                with watch(POINTS, "denoiser, {}/{} of its training") as watcher:
                    return fit_denoiser(
                        network, rows.fit, rows.held_out, steps, settings, watcher, place
                    )

            curves[kind] = _trained(network, denoise, place)
            # The held-out rows are to say what its scores mean: they must not weigh its residuals.
            return _reconstruction(network, rows)
        case "autoencoder":
            network = build(settings, len(rows.share))

            def reconstruct() -> Curves:
                with watch(epochs_of(len(rows.fit), settings)) as watcher:
                    return fit(network, rows.fit, rows.stop, settings, watcher, place)

            curves[kind] = _trained(network, reconstruct, place)
            return _reconstruction(network, rows, rows.stop)
        case "neighbours":
            stored = stored_rows(len(rows.sample.network), settings.stored_rows, settings.seed)
            some = Prepared(*(part[stored] for part in rows.sample))
            return Neighbours(Whitened(rows.sample, rows.varying, rows.share), some)
        case "norm":
            # Its quantiles hardly heed some dirt, and miss rare normal rows that went with it.
            return Norm(RankGauss(rows.untrimmed, rows.varying), rows.share)


def _trained(network: nn.Module, train: Callable[[], Curves], place: Training) -> Curves:
    """Train the network, unless it was trained before the program was interrupted."""
    kept = place.finished()
    if kept is None:
        curves = train()
        place.finish(
            {
                "network": network.state_dict(),
                "curves": asdict(curves),
                "random": torch.get_rng_state(),
            }
        )
        return curves
    network.load_state_dict(kept["network"])
    network.eval()
    torch.set_rng_state(kept["random"])
    return Curves(**kept["curves"])


def _check_width(width: int, columns: int) -> None:
    parameters = 2 * width * (columns + width)
    if 4 * parameters > FILE_BYTES_MAX:
        raise SettingsError(
            f"width={width} makes some {parameters:,} parameters; wanted at most "
            f"{FILE_BYTES_MAX // 4:,}, which a sealed file can hold. Nothing was trained; set a "
            "smaller width"
        )


def _reconstruction(network: nn.Module, rows: _Rows, *unseen: Prepared) -> Reconstruction:
    weights = residual_weights(network, rows.limit, rows.share, rows.sample, *unseen)
    return Reconstruction(network, weights, rows.limit)


def _raw_scores(scorer: Scorer, rows: Prepared) -> Floats:
    """Return the detectors' raw scores [m, h] of prepared rows."""
    scores = []
    with torch.no_grad():
        for piece in in_pieces(rows):
            present = scorer.columns.present(piece.present)
            count = present.sum(1, keepdim=True).clamp(min=1.0)
            scores.append(torch.cat([one.score for one in scorer.detect(piece, count)], dim=1))
    return np.asarray(torch.cat(scores), np.float32)
