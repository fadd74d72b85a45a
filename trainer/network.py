"""Which network the settings ask for: the one place that chooses among the families.

A family is a module from prepared features [n, d] to their reconstruction [n, d]. A setting that
the family cannot heed is refused by name, and never left unheeded: a person who sets it expects
it to count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from schemas.digest import FILE_BYTES_MAX
from schemas.errors import SettingsError
from trainer.autoencoder import Activation, Autoencoder, default_bottleneck
from trainer.convolutional import ConvolutionalAutoencoder, depth_max
from trainer.recurrent import RecurrentAutoencoder
from trainer.settings import Family, TrainingSettings
from trainer.shape import axes_of, text_of

# Encoder widths where none are set; of convolutions as many as the axes can be halved.
DEFAULT_HIDDEN: dict[Family, tuple[int, ...]] = {
    "dense": (128, 64),
    "conv": (32, 64),
    "lstm": (64,),
    "gru": (64,),
}
DEFAULT_ACTIVATION: Activation = "leaky_relu"
DEFAULT_KERNEL = 3
_OF_A_CELL = "a recurrent cell has its own, tanh and sigmoid"
_OF_CONVOLUTIONS = "only convolutions have one"
# What a family cannot heed, and why.
_UNHEEDED: dict[Family, dict[str, str]] = {
    "dense": {
        "event_shape": "dense layers see no shape, only a row of features",
        "kernel": _OF_CONVOLUTIONS,
    },
    "conv": {},
    "lstm": {"activation": _OF_A_CELL, "kernel": _OF_CONVOLUTIONS},
    "gru": {"activation": _OF_A_CELL, "kernel": _OF_CONVOLUTIONS},
}
_FLOAT_BYTES = 4


def build(settings: TrainingSettings, d: int) -> nn.Module:
    """Return an untrained network for events of `d` features.

    Raises:
        SettingsError: the family cannot be built so, or cannot heed a setting; the text says why.
    """
    for name, reason in _UNHEEDED[settings.family].items():
        value = getattr(settings, name)
        if value is not None:
            raise _refused(
                f"{name}={text_of(value) if name == 'event_shape' else value} with "
                f"family={settings.family}: {reason}",
                f"no {name}",
                f"leave it out{_another_family(name)}",
            )
    if settings.family != "dense":
        _check_shape(settings, d)
        _check_widths(settings)
    with torch.device("meta"):  # Nothing is allocated before it is known to fit.
        parameters = sum(part.numel() for part in _build(settings, d).parameters())
    if _FLOAT_BYTES * parameters > FILE_BYTES_MAX:
        raise _refused(
            f"hidden={_widths(hidden_of(settings))} makes {parameters:,} parameters",
            f"at most {FILE_BYTES_MAX // _FLOAT_BYTES:,}, which a sealed file can hold",
            "set narrower layers",
        )
    return _build(settings, d)


def hidden_of(settings: TrainingSettings) -> tuple[int, ...]:
    """Return the encoder's widths: those that are set, else the family's own."""
    if settings.hidden is not None:
        return settings.hidden
    widths, shape = DEFAULT_HIDDEN[settings.family], settings.event_shape
    return widths[: depth_max(shape)] if settings.family == "conv" and shape else widths


def _build(settings: TrainingSettings, d: int) -> nn.Module:
    hidden = hidden_of(settings)
    shape = settings.event_shape or ()
    bottleneck = settings.bottleneck or default_bottleneck(d)
    activation = settings.activation or DEFAULT_ACTIVATION
    layer_norm = settings.normalisation == "layer"
    match settings.family:
        case "dense":
            return Autoencoder(
                d,
                hidden,
                bottleneck,
                activation,
                settings.normalisation,
                settings.dropout,
            )
        case "conv":
            return ConvolutionalAutoencoder(
                shape,
                hidden,
                bottleneck,
                settings.kernel or DEFAULT_KERNEL,
                activation,
                settings.normalisation,
                settings.dropout,
            )
        case "lstm" | "gru":
            return RecurrentAutoencoder(
                settings.family, shape, hidden, bottleneck, layer_norm, settings.dropout
            )


def _check_shape(settings: TrainingSettings, d: int) -> None:
    """Check that the shape is there, is of these features, and is one that the family reads."""
    family, shape = settings.family, settings.event_shape
    if shape is None:
        raise _refused(
            f"family={family} without an event shape",
            f"one whose product is {d}, the number of features",
            "give --event-shape 19x3 for 19 objects of 3 values",
        )
    seen = f"event_shape={text_of(shape)} with family={family}"
    if math.prod(shape) != d:
        raise _refused(
            f"{seen} holds {math.prod(shape):,} features; an event has {d:,}",
            f"a product of {d:,}",
            "correct --event-shape, or what --drop-column leaves out (a category of K texts counts "
            "K + 1 times)",
        )
    if len(shape) == 3 and family != "conv":
        raise _refused(
            f"{seen}: three numbers are an image",
            "two, a sequence of steps with their values",
            "give --event-shape STEPSxVALUES, or take family=conv",
        )
    if len(shape) == 2 and shape[0] == 1:
        raise _refused(f"{seen}: a single step", "a sequence of at least two", "take family=dense")


def _check_widths(settings: TrainingSettings) -> None:
    """Check that the widths, and what goes with them, make sense for the family and its shape."""
    family, shape, hidden = settings.family, settings.event_shape or (), hidden_of(settings)
    seen = f"hidden={_widths(hidden)} with family={family}"
    if not hidden:
        raise _refused(f"{seen}: no layer", "at least one width", "set hidden=32")
    if family == "conv":
        _check_convolutions(seen, hidden, shape, settings.kernel or DEFAULT_KERNEL)
    elif settings.normalisation == "batch":
        raise _refused(
            f"normalisation=batch with family={family}: it cannot be folded into the weights of "
            "a layer, and would stay in the exported graph",
            "none or layer",
            "set normalisation=layer",
        )


def _check_convolutions(
    seen: str, hidden: Sequence[int], shape: tuple[int, ...], kernel: int
) -> None:
    on = f"event_shape={text_of(shape)}"
    if len(hidden) > depth_max(shape):
        raise _refused(
            f"{seen}: {len(hidden)} layers, each of which halves the axes of {on}",
            f"at most {depth_max(shape)}, after which nothing is left to halve",
            "set fewer widths",
        )
    widest = 2 * max(axes_of(shape)) - 1
    if kernel % 2 == 0 or kernel > widest:
        raise _refused(
            f"kernel={kernel} with {on}",
            f"an odd number, at most {widest}, which reaches from end to end",
            "set kernel=3",
        )


def _refused(seen: str, wanted: str, advice: str) -> SettingsError:
    return SettingsError(f"{seen}; wanted {wanted}. Nothing was trained; {advice}")


def _another_family(name: str) -> str:
    families = [family for family, unheeded in _UNHEEDED.items() if name not in unheeded]
    return f", or take family={' or '.join(families)}"


def _widths(hidden: Sequence[int]) -> str:
    return ",".join(map(str, hidden))
