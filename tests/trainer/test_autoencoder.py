from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.autoencoder import Autoencoder, RowNorm


def widths(network):
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def test_the_decoder_mirrors_the_encoder():
    assert widths(Autoencoder(57, (128, 64), 5)) == [57, 128, 64, 5, 64, 128, 57]


@pytest.mark.parametrize(("data_dim", "bottleneck"), [(1, 1), (6, 2), (57, 14), (400, 100)])
def test_the_bottleneck_follows_the_number_of_features(data_dim, bottleneck):
    assert Autoencoder(data_dim).bottleneck == bottleneck


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "tanh", "sigmoid", "silu", "gelu"])
@pytest.mark.parametrize("normalisation", ["none", "batch", "layer"])
def test_every_option_gives_back_the_shape_it_was_given(activation, normalisation):
    network = Autoencoder(7, (8, 4), 2, activation, normalisation, dropout=0.1)

    assert network(torch.randn(5, 7)).shape == (5, 7)


def test_bottleneck_and_output_are_neither_normalised_nor_bent():
    network = Autoencoder(7, (8,), 2, "relu", "layer", dropout=0.5)

    assert isinstance(network.encoder[-1], nn.Linear)
    assert isinstance(network.decoder[-1], nn.Linear)


def test_our_layer_normalisation_is_torchs():
    x = 3 * torch.randn(20, 16) + 1

    torch.testing.assert_close(RowNorm(16)(x), nn.LayerNorm(16)(x), rtol=1e-4, atol=1e-5)
