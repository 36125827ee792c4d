"""Generators and discriminators, on one contract.

  generator      module(z [B, L], cond=None, train=False) -> x [B, *shape]
  discriminator  module(x [B, *shape], cond=None, train=False) -> core.Critique(logits, features, extra)

`cond` is a dict with "label" [B] and "embedding" [B, D] where the network declares `num_classes` and
`embedding_dim`. `features` [B, F] is what the head's last linear layer sees; `extra` what the head adds
(see `heads`). Logits and features are float32. Mutable collections: "batch_stats" and "spectral", updated
where train=True; "reference", fixed at init. Random layers take the streams "dropout" and "noise".
"""

from genjax.networks.gan.biggan import BigGANDiscriminator, BigGANGenerator
from genjax.networks.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from genjax.networks.gan.heads import HEADS, make_head
from genjax.networks.gan.layers import (
    ACTIVATIONS,
    INITS,
    CondInput,
    MinibatchDiscrimination,
    SelfAttention,
    minibatch_stddev,
)
from genjax.networks.gan.mlp import MLPDiscriminator, MLPGenerator
from genjax.networks.gan.norms import NORMS, Norm, standing_statistics
from genjax.networks.gan.resnet import ResNetDiscriminator, ResNetGenerator
from genjax.networks.gan.spectral import SpectralConv, SpectralDense, SpectralUpConv, spectral_norm

GENERATORS = {
    # name: constructor of the module
    "mlp": MLPGenerator,
    "dcgan": DCGANGenerator,
    "resnet": ResNetGenerator,
    "biggan": BigGANGenerator,
}
DISCRIMINATORS = {
    # name: constructor of the module
    "mlp": MLPDiscriminator,
    "dcgan": DCGANDiscriminator,
    "resnet": ResNetDiscriminator,
    "biggan": BigGANDiscriminator,
}

__all__ = [
    "ACTIVATIONS",
    "DISCRIMINATORS",
    "GENERATORS",
    "HEADS",
    "INITS",
    "NORMS",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "CondInput",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "MinibatchDiscrimination",
    "Norm",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SelfAttention",
    "SpectralConv",
    "SpectralDense",
    "SpectralUpConv",
    "make_head",
    "minibatch_stddev",
    "spectral_norm",
    "standing_statistics",
]
