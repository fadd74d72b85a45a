"""The training settings: what `--set name=value` takes.

Every default carries its reason in its description, which is also the help. They are written
into the sealed file, so that a file says how it was made.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from schemas.contract import MissingPolicy, UnseenPolicy
from schemas.errors import did_you_mean
from trainer.autoencoder import Activation, Normalisation
from trainer.presets import PRESETS, Preset
from trainer.shape import EventShape
from trainer.transforms import Choice

Family = Literal["dense", "conv", "lstm", "gru"]
Detector = Literal["denoiser", "autoencoder", "neighbours", "norm"]
Schedule = Literal["constant", "step", "cosine", "plateau"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Weight = Annotated[float, Field(ge=1e-3, le=1e3)]
DETECTORS: tuple[Detector, ...] = get_args(Detector)
EVERY = "*"
# Chosen on nine tabular sets: of a few weights the one whose worst set was least behind the better
# of nearest neighbours and the plain norm, and then by the mean.
DEFAULT_DETECTORS: dict[Detector, float] = {"denoiser": 3.0, "neighbours": 2.0, "norm": 2.0}


def _read_detectors(text: object) -> object:
    """Read `name,name:weight`."""
    if not isinstance(text, str):
        return text
    pairs = [part.partition(":") for part in text.split(",")]
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"wanted each detector once, got {', '.join(names)}")
    for name in names:
        if name not in DETECTORS:
            raise ValueError(
                f"no detector is named {name!r}{did_you_mean(name, DETECTORS)}; wanted some of "
                f"{', '.join(DETECTORS)}"
            )
    return {name: weight if colon else 1.0 for name, colon, weight in pairs}


def _split_numbers(text: object) -> object:
    return [part for part in text.split(",") if part] if isinstance(text, str) else text


def _read_choices(text: object) -> object:
    """Read `choice` for every feature, or `name:choice,name:choice`."""
    if not isinstance(text, str):
        return text
    pairs = [part.rpartition(":") for part in text.split(",")]
    return {name or EVERY: choice for name, _, choice in pairs}


def _name_or_number(choice: object) -> str:
    """Tell which of two kinds a choice is, so that a wrong one has one complaint and not two."""
    return "number" if str(choice).lstrip("+-")[:1] in set("0123456789.") else "name"


TransformChoice = Annotated[
    Annotated[Choice, Tag("name")] | Annotated[float, Field(gt=0), Tag("number")],
    Discriminator(_name_or_number),
]

_ASK_FOR_AUTOENCODER = frozenset({"family", "event_shape", "hidden", "bottleneck"})
_OF_AUTOENCODERS = (
    *("family", "event_shape", "hidden", "bottleneck", "kernel", "activation"),
    *("normalisation", "dropout", "learning_rate", "schedule", "patience"),
)
_OF_NETWORKS = ("epochs", "steps_min", "steps_max", "batch_size", "clip")
# The detectors that heed a setting, of those that not every one of them does.
_HEEDED_BY: dict[str, tuple[Detector, ...]] = {
    "width": ("denoiser",),
    "stored_rows": ("neighbours",),
    **dict.fromkeys(_OF_NETWORKS, ("denoiser", "autoencoder")),
    **dict.fromkeys(_OF_AUTOENCODERS, ("autoencoder",)),
}


def is_heeded(setting: str, detectors: Container[str]) -> bool:
    """Say whether a setting means anything to at least one of these detectors."""
    return any(owner in detectors for owner in _HEEDED_BY.get(setting, DETECTORS))


class TrainingSettings(BaseModel):
    """How the network is built and trained; each can be set by `--set name=value`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Preset = Field(
        "default",
        description="default, best, dense or seed: which settings to start from; others win over "
        "it. seed wants features f0 to f56, as an NPZ file of 57 has them",
    )
    detectors: (
        Annotated[dict[Detector, Weight], Field(min_length=1), BeforeValidator(_read_detectors)]
        | None
    ) = Field(
        None,
        description="of denoiser, autoencoder, neighbours and norm, with weights; unset: "
        "denoiser:3,neighbours:2,norm:2, or autoencoder where its family or layers are set",
    )
    stored_rows: int = Field(
        512,
        ge=0,
        le=65_536,
        multiple_of=4,
        description="training rows inside the model, in four blocks, for neighbours; 0: none",
    )
    width: int = Field(
        128, ge=1, le=65_536, description="of the denoiser's layers; 256 gained 0.2 points of AUC"
    )
    family: Family = Field(
        "dense",
        description="the autoencoder's layers: dense, which needs no shape, or conv, lstm or gru, "
        "which read one",
    )
    event_shape: EventShape | None = Field(
        None, description="STEPSxVALUES or CHANNELSxROWSxCOLUMNS; the last axis varies fastest"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="same seed, rows and versions: same bytes")
    threads: int = Field(
        1, ge=1, le=256, description="one: another number gives other weights, hence other bytes"
    )
    hidden: Annotated[tuple[Width, ...], BeforeValidator(_split_numbers)] | None = Field(
        None,
        description="encoder widths; unset: 128,64 (dense), 32,64 (conv), 64 (lstm, gru), for "
        "larger ones gained too little on collision events for what they cost",
    )
    bottleneck: int | None = Field(
        None, ge=1, le=65_536, description="the narrowest width; unset: a quarter of the features"
    )
    kernel: int | None = Field(
        None, ge=1, le=255, description="of conv; unset: 3, a place and its neighbours"
    )
    activation: Activation | None = Field(
        None,
        description="leaky_relu, relu, tanh, sigmoid, silu or gelu; unset: leaky_relu, whose units "
        "cannot die; lstm and gru have their own",
    )
    normalisation: Normalisation = Field(
        "none", description="none, batch or layer; inputs are standardised already"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="early stopping suffices")
    epochs: int = Field(
        40, ge=1, le=1_000_000, description="half a minute for 26,150 events of 57 numbers"
    )
    steps_min: int = Field(
        2_500, ge=0, description="small data gets more epochs, up to this many steps in all"
    )
    steps_max: int = Field(
        100_000,
        ge=1,
        le=1_000_000_000,
        description="of each network; above 320,000 fit rows it makes an epoch a part of a pass",
    )
    batch_size: int = Field(128, ge=2, description="as the recipes that the figures compare with")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Adam's own default")
    schedule: Schedule = Field(
        "cosine",
        description="constant, step, plateau or cosine, which ends at rest, whatever the epochs",
    )
    patience: int = Field(10, ge=1, description="epochs without a better one before it stops")
    clip: float = Field(
        10.0, gt=0, le=1000, description="farthest that the network sees, in standard deviations"
    )
    trim: float = Field(
        0.0,
        ge=0,
        le=0.3,
        description="share of the fit rows to leave out, those that look least normal: for dirty "
        "data, takes three times as long; clean data loses by it",
    )
    transforms: Annotated[dict[str, TransformChoice], BeforeValidator(_read_choices)] = Field(
        {EVERY: "auto"},
        description="auto, standardise, asinh, or a number to divide by; or name:asinh,name:5.2",
    )
    missing: Annotated[dict[str, MissingPolicy], BeforeValidator(_read_choices)] = Field(
        {EVERY: "mask"},
        description="mask: scored by the values that are there; refuse: unscorable; or "
        "name:refuse,name:mask",
    )
    unseen: Annotated[dict[str, UnseenPolicy], BeforeValidator(_read_choices)] = Field(
        {EVERY: "other"},
        description="texts that a category did not have in training: other, scored as one more "
        "category, or refuse; or name:refuse,name:other",
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {**PRESETS.get(str(given.get("preset", "default")), {}), **given}

    def chosen_detectors(self) -> dict[Detector, float]:
        """Return the detectors and their weights.

        Whoever sets an autoencoder's family or layers asks for one. Networks come first: what they
        expect stands in for missing values in those that follow.
        """
        chosen = self.detectors
        if chosen is None:
            asked = _ASK_FOR_AUTOENCODER & self.model_fields_set
            chosen = {"autoencoder": 1.0} if asked else DEFAULT_DETECTORS
        return {name: chosen[name] for name in DETECTORS if name in chosen and self._may(name)}

    def _may(self, detector: Detector) -> bool:
        return detector != "neighbours" or self.stored_rows > 0

    @model_validator(mode="after")
    def _check_detectors(self) -> TrainingSettings:
        if not self.chosen_detectors():
            raise ValueError("stored_rows: 0 leaves no detector; wanted one beside neighbours")
        # By their values, as a record of settings names them all.
        changed = {
            name
            for name, field in TrainingSettings.model_fields.items()
            if getattr(self, name) != field.default
        }
        chosen = self.chosen_detectors()
        for name in [name for name in _HEEDED_BY if name in changed]:
            forbidden = name == "stored_rows" and self.stored_rows == 0
            if not is_heeded(name, chosen) and not forbidden:
                raise ValueError(
                    f"{name}: only {' and '.join(_HEEDED_BY[name])} would heed it, and the "
                    f"detectors are {', '.join(chosen)}; leave it out, or choose other detectors"
                )
        return self
