"""Every family of networks: what it builds, what it refuses, and that what it seals holds."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from torch import nn

from schemas.errors import SettingsError
from trainer.__main__ import main
from trainer.checkpoint import Checkpoint
from trainer.commands import FitCommand
from trainer.convolutional import ConvolutionalAutoencoder, depth_max
from trainer.fit import fit
from trainer.flags import parse
from trainer.network import build
from trainer.presets import PRESETS
from trainer.recurrent import _Recurrence
from trainer.rows import HeldRows
from trainer.runtime import open_sealed, run
from trainer.settings import TrainingSettings
from trainer.transforms import Prepared

SEQUENCE, IMAGE = (5, 3), (1, 4, 5)
# A family and its shape: convolutions have two kinds.
KINDS = {
    "dense": ("dense", None),
    "conv-1d": ("conv", SEQUENCE),
    "conv-2d": ("conv", IMAGE),
    "lstm": ("lstm", SEQUENCE),
    "gru": ("gru", SEQUENCE),
}
# Of the families that take more than none and layer.
NORMALISATIONS = {"dense": ("none", "batch", "layer"), "conv": ("none", "batch", "layer")}
# Each option is in one of the sealed models.
SEALED = {
    "conv-1d": ["normalisation=batch", "dropout=0.1", "activation=gelu", "schedule=step"],
    "conv-2d": ["normalisation=layer", "activation=silu", "hidden=4,8"],
    "lstm": ["normalisation=layer", "dropout=0.1", "hidden=8,4", "schedule=plateau"],
    "gru": ["hidden=8", "schedule=constant"],
}
every_kind = pytest.mark.parametrize("kind", KINDS)
# torch's exporter looks at tensors within its own loop over an LSTM's steps; no user sees it.
exports = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def settings(kind, **values):
    family, shape = KINDS[kind]
    return TrainingSettings(**{"family": family, "event_shape": shape, "hidden": (8,), **values})


def width_of(kind):
    return math.prod(KINDS[kind][1] or SEQUENCE)


def built(kind, **values):
    torch.manual_seed(0)
    return build(settings(kind, **values), width_of(kind))


def events(kind, n, seed=0):
    """Rows of a few causes each, one value in a hundred of them missing."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(1).normal(size=(3, width_of(kind)))
    rows = rng.normal(size=(n, 3)) @ mix + 0.1 * rng.normal(size=(n, width_of(kind)))
    rows[rng.random(rows.shape) < 0.01] = np.nan
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def sealed_of(tmp_path_factory):
    """A family's path, sealed by the program with the options of `SEALED`; made once."""
    made = {}

    def seal(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("family")
            np.savez(folder / "normal.npz", X=events(kind, 300))
            family, shape = KINDS[kind]
            options = [f"family={family}", "epochs=2", "steps_min=1", *SEALED[kind]]
            arguments = ["--event-shape", "x".join(map(str, shape))]
            arguments += [word for option in options for word in ("--set", option)]
            out = folder / f"{kind}.onnx"
            assert main(["fit", str(folder / "normal.npz"), "--out", str(out), *arguments]) == 0
            made[kind] = out
        return made[kind]

    return seal


@exports
@pytest.mark.parametrize("kind", SEALED)
def test_every_family_seals_and_verifies(sealed_of, kind):
    """Sealing compares with torch, and each row with itself, in batches of 1 to 4,096."""
    model = open_sealed(sealed_of(kind))

    family, shape = KINDS[kind]
    recorded = model.contract.training["settings"]
    assert (recorded["family"], recorded["event_shape"]) == (family, list(shape))
    assert recorded["preset"] == "default"
    rebuilt = build(TrainingSettings.model_validate(recorded), width_of(kind))
    assert type(rebuilt) is type(built(kind))


@exports
@pytest.mark.parametrize("kind", SEALED)
def test_the_graph_of_every_family_holds_nothing_that_batches_change(sealed_of, kind):
    graph = onnx.load(sealed_of(kind)).graph

    assert not {node.op_type for node in graph.node} & {
        "Log", "Softplus", "ReduceSum", "ReduceMean", "LayerNormalization", "Dropout",
        "BatchNormalization", "If", "Loop", "Scan",
    }  # fmt: skip


@exports
@pytest.mark.parametrize("kind", SEALED)
def test_missing_and_extreme_values_score_finite(sealed_of, kind):
    session = open_sealed(sealed_of(kind)).session
    rows = np.nan_to_num(events(kind, 4, seed=2))
    rows[1, ::2] = np.nan
    rows[2, 1:] = np.nan
    rows[3, 0] = np.inf

    outputs = run(session, rows)

    assert np.isfinite(outputs.score).all()
    assert np.isfinite(outputs.expected).all()
    assert not outputs.contributions[np.isnan(rows)].any()
    assert outputs.score[3] > 5 * outputs.score[0]


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh", "sigmoid", "silu", "gelu"])
@pytest.mark.parametrize("kind", ["dense", "conv-1d", "conv-2d"])
def test_every_activation_stands_in_the_network_that_asks_for_it(kind, activation):
    network = built(kind, activation=activation)

    names = {type(layer).__name__.lower() for layer in network.modules()}
    assert activation.replace("_", "") in names


@every_kind
def test_every_normalisation_and_dropout_gives_back_the_shape_it_was_given(kind):
    x = torch.randn(6, width_of(kind))
    for normalisation in NORMALISATIONS.get(KINDS[kind][0], ("none", "layer")):
        network = built(kind, normalisation=normalisation, dropout=0.5)
        names = " ".join(type(layer).__name__ for layer in network.modules())

        assert network(x).shape == x.shape
        assert ("BatchNorm" in names) == (normalisation == "batch")
        assert ("RowNorm" in names) == (normalisation == "layer")
        assert not torch.equal(network(x), network(x)), "dropout"
        network.eval()
        assert torch.equal(network(x), network(x))


@every_kind
def test_every_feature_can_change_the_reconstruction_of_its_event_alone(kind):
    # A sigmoid's slope is nowhere 0; a recurrence has its own.
    smooth = {} if kind in ("lstm", "gru") else {"activation": "sigmoid"}
    network, width = built(kind, bottleneck=4, **smooth).eval(), width_of(kind)
    slopes = torch.autograd.functional.jacobian(network, torch.randn(2, width))

    own = slopes[[0, 1], :, [0, 1], :]  # [event, out, in]
    assert (own.abs().sum(1) > 0).all()
    assert not slopes[0, :, 1].any()


@every_kind
def test_the_bottleneck_is_the_only_way_through(kind):
    """With a code of one number, what a family gives back lies on a curve."""
    network, width = built(kind, bottleneck=1).double().eval(), width_of(kind)

    slope = torch.autograd.functional.jacobian(network, torch.randn(1, width).double())

    assert torch.linalg.matrix_rank(slope.reshape(width, width)) == 1


PLACE = Checkpoint().training("autoencoder")  # Where nothing is kept.


class Silent:
    def epoch_ended(self, epoch, training_loss, validation_loss):
        pass


def prepared(kind, n, seed):
    rows = torch.from_numpy(np.nan_to_num(events(kind, n, seed)))
    return Prepared(rows, rows, torch.ones_like(rows))


@every_kind
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(kind):
    def weights(seed):
        chosen = settings(kind, epochs=2, steps_min=1, batch_size=32, dropout=0.2, seed=seed)
        torch.manual_seed(seed)
        network = build(chosen, width_of(kind))
        rows = HeldRows(prepared(kind, 80, 1))
        fit(network, rows, prepared(kind, 20, 2), chosen, Silent(), PLACE)
        return torch.cat([part.flatten() for part in network.parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@every_kind
def test_every_family_learns_what_its_features_have_in_common(kind):
    """The events have three causes: a code of four numbers can hold them."""
    torch.manual_seed(0)
    chosen = settings(kind, epochs=15, steps_min=1, batch_size=25, learning_rate=0.01, bottleneck=4)
    network = build(chosen, width_of(kind))
    rows = HeldRows(prepared(kind, 250, 1))
    curves = fit(network, rows, prepared(kind, 60, 2), chosen, Silent(), PLACE)

    assert min(curves.validation) < 0.25 * curves.validation[0]


@pytest.mark.parametrize(("cell", "theirs"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_our_recurrences_are_torchs(cell, theirs):
    ours, torchs = _Recurrence(cell, 3, 4), theirs(3, 4, batch_first=True)
    for mine, other in zip(ours.weights, torchs.parameters(), strict=True):
        mine.data.copy_(other.data)
    x = torch.randn(5, 7, 3)

    torch.testing.assert_close(ours(x), torchs(x)[0])


def test_the_default_convolutions_are_no_deeper_than_the_axis_allows():
    for steps, layers in [(2, 1), (3, 2), (19, 2)]:
        network = build(TrainingSettings(family="conv", event_shape=(steps, 3)), 3 * steps)

        assert sum(isinstance(part, nn.Conv1d) for part in network.modules()) == layers


def test_convolutions_see_an_objects_values_as_its_channels():
    first = next(part for part in built("conv-1d").modules() if isinstance(part, nn.Conv1d))
    assert (first.in_channels, first.out_channels) == (SEQUENCE[1], 8)
    network = built("conv-1d", kernel=1, hidden=(4,)).eval()
    x, changed = torch.zeros(1, 15), torch.zeros(1, 15)
    changed[0, 3:6] = 1.0  # The second object, which a stride of 2 and a kernel of 1 skip.

    torch.testing.assert_close(network(x), network(changed))


@settings_of_hypothesis(max_examples=40)
@given(st.data())
def test_any_depth_that_halves_an_axis_comes_back_to_its_shape(data):
    axes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=2))
    channels, kernel = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 3, 5]))
    shape = (axes[0], channels) if len(axes) == 1 else (channels, *axes)
    depth = data.draw(st.integers(0, depth_max(shape)))
    with torch.device("meta"):  # Shapes alone, and nothing computed.
        network = ConvolutionalAutoencoder(shape, (2,) * max(1, depth), 1, kernel)
        x = torch.zeros(2, math.prod(shape))

    assert network(x).shape == x.shape


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        ({"family": "conv"}, ["conv without an event shape", "product is 15", "--event-shape"]),
        ({"family": "gru", "event_shape": (4, 3)}, ["4x3", "holds 12 features", "has 15"]),
        ({"event_shape": SEQUENCE}, ["event_shape=5x3 with family=dense", "conv or lstm or gru"]),
        ({"family": "lstm", "event_shape": (1, 3, 5)}, ["three numbers are an image", "conv"]),
        ({"family": "lstm", "event_shape": (1, 15)}, ["a single step", "family=dense"]),
        (
            {"family": "conv", "event_shape": SEQUENCE, "hidden": (8,) * 4},
            ["hidden=8,8,8,8", "halves the axes of event_shape=5x3", "at most 3"],
        ),
        ({"family": "conv", "event_shape": SEQUENCE, "hidden": ()}, ["no layer", "one width"]),
        ({"family": "conv", "event_shape": SEQUENCE, "kernel": 4}, ["kernel=4", "odd"]),
        ({"family": "conv", "event_shape": SEQUENCE, "kernel": 11}, ["kernel=11", "at most 9"]),
        ({"family": "dense", "kernel": 3}, ["kernel=3 with family=dense", "family=conv"]),
        (
            {"family": "lstm", "event_shape": SEQUENCE, "activation": "leaky_relu"},
            ["activation=leaky_relu with family=lstm", "tanh and sigmoid", "leave it out"],
        ),
        (
            {"family": "gru", "event_shape": SEQUENCE, "normalisation": "batch"},
            ["normalisation=batch with family=gru", "exported graph", "normalisation=layer"],
        ),
        ({"hidden": (65_536, 65_536)}, ["8,592,687,123 parameters", "536,870,911", "narrower"]),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(values, messages):
    with pytest.raises(SettingsError) as caught:
        build(TrainingSettings(**values), 15)

    text = str(caught.value)
    assert all(message in text for message in messages), text
    assert "Nothing was trained; " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--event-shape", "19by3"], "--event-shape: wanted STEPSxVALUES, as 19x3"),
        (["--event-shape", "57"], "(seen: '57')"),
        (["--event-shape", "19xthree"], "--event-shape: input should be a valid integer"),
        (
            ["--set", "transforms=f0:0"],
            "--set transforms.f0.number: input should be greater than 0",
        ),
        (["--event-shape", "0x3"], "--event-shape: input should be greater than or equal to 1"),
        (["--event-shape", "1x2x3x4"], "CHANNELSxROWSxCOLUMNS"),
        (
            ["--event-shape", "5x3", "--set", "event_shape=5x3"],
            "--set: event_shape: also given by its own flag; wanted one of them",
        ),
        (["--preset", "sead"], "--preset: input should be 'default'"),
        (
            ["--set", "family=attention"],
            "--set family: input should be 'dense', 'conv', 'lstm' or 'gru'",
        ),
        (["--event-shape", "5x4", "--set", "family=lstm"], "holds 20 features; an event has 15"),
    ],
)
def test_a_wrong_shape_family_or_preset_is_one_message(arguments, message, tmp_path, capsys):
    np.savez(tmp_path / "normal.npz", X=events("lstm", 60))
    files = [str(tmp_path / "normal.npz"), "--out", str(tmp_path / "m.onnx")]

    assert main(["fit", *files, *arguments]) == 2

    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error
    assert not (tmp_path / "m.onnx").exists()


def fit_settings(*arguments):
    command = parse("p", "", {"fit": FitCommand}, ["fit", "a.csv", "--out", "m.onnx", *arguments])
    return command.training


def test_a_preset_sets_what_it_says_and_a_setting_by_hand_wins():
    seed = fit_settings("--preset", "seed", "--set", "epochs=3")

    assert seed.preset == "seed"
    assert seed.epochs == 3
    assert (seed.hidden, seed.bottleneck) == ((256, 128, 64, 32, 16), 5)
    assert (seed.batch_size, seed.learning_rate, seed.schedule) == (128, 1e-3, "constant")
    assert fit_settings("--set", "preset=seed", "--set", "epochs=3") == seed


def test_without_a_preset_the_default_one_is_recorded():
    assert fit_settings() == TrainingSettings() == TrainingSettings(preset="default")
    assert fit_settings("--event-shape", "5x3").event_shape == (5, 3)


def test_every_preset_is_made_of_settings():
    for name, values in PRESETS.items():
        assert TrainingSettings(preset=name).model_dump().items() >= values.items()
