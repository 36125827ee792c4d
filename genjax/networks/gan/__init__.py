"""Generators and discriminators, on one contract.

  generator      module(z [B, L], cond=None, train=False) -> x [B, *shape]
  discriminator  module(x [B, *shape], cond=None, train=False) -> core.Critique(logits, features, extra)

`cond` is a dict with "label" [B] and "embedding" [B, D] where the network declares `num_classes` and
`embedding_dim`. `features` [B, F] is what the head's last linear layer sees; `extra` what the head adds
(see `heads`). Logits and features are float32. Mutable collections: "batch_stats" and "spectral", updated
where train=True; "reference", fixed at init. Random layers take the streams "dropout" and "noise".
"""

from genjax.networks.gan.autoencoding import MLPAutoencodingDiscriminator
from genjax.networks.gan.bayes import BayesGenerator
from genjax.networks.gan.biggan import BigGANDiscriminator, BigGANGenerator
from genjax.networks.gan.dcgan import DCGANDiscriminator, DCGANGenerator
from genjax.networks.gan.equalized import EqualConv, EqualDense, pixel_norm
from genjax.networks.gan.fastgan import AEDiscriminator, FastGANGenerator, reconstruction_error
from genjax.networks.gan.grouped import grouped_conv
from genjax.networks.gan.heads import HEADS, make_head
from genjax.networks.gan.layers import (
    ACTIVATIONS,
    INITS,
    CondInput,
    MinibatchDiscrimination,
    SelfAttention,
    minibatch_stddev,
)
from genjax.networks.gan.lipschitz import LipschitzDiscriminator
from genjax.networks.gan.mlp import MLPDiscriminator, MLPGenerator
from genjax.networks.gan.norms import NORMS, Norm, standing_statistics
from genjax.networks.gan.progressive import (
    ProgressiveDiscriminator,
    ProgressiveGenerator,
    faded,
    progressive_schedule,
)
from genjax.networks.gan.projected import ProjectedDiscriminator, classifier_maps
from genjax.networks.gan.r3gan import R3GAN_PRESETS, R3Discriminator, R3Generator
from genjax.networks.gan.resnet import ResNetDiscriminator, ResNetGenerator
from genjax.networks.gan.spectral import SpectralConv, SpectralDense, SpectralUpConv, spectral_norm
from genjax.networks.gan.stylegan2 import STYLEGAN2_PRESETS, StyleGAN2Generator, modulated_conv
from genjax.networks.gan.stylegan2_discriminator import StyleGAN2Discriminator

GENERATORS = {
    # name: constructor of the module
    "mlp": MLPGenerator,
    "bayes_mlp": BayesGenerator,
    "dcgan": DCGANGenerator,
    "resnet": ResNetGenerator,
    "biggan": BigGANGenerator,
    "r3gan": R3Generator,
    "stylegan2": StyleGAN2Generator,
    "progressive": ProgressiveGenerator,
    "fastgan": FastGANGenerator,
}
DISCRIMINATORS = {
    # name: constructor of the module
    "mlp": MLPDiscriminator,
    "lipschitz_mlp": LipschitzDiscriminator,
    "mlp_autoencoding": MLPAutoencodingDiscriminator,
    "dcgan": DCGANDiscriminator,
    "resnet": ResNetDiscriminator,
    "biggan": BigGANDiscriminator,
    "r3gan": R3Discriminator,
    "stylegan2": StyleGAN2Discriminator,
    "progressive": ProgressiveDiscriminator,
    "fastgan": AEDiscriminator,
    "projected": ProjectedDiscriminator,
}

__all__ = [
    "ACTIVATIONS",
    "DISCRIMINATORS",
    "GENERATORS",
    "HEADS",
    "INITS",
    "NORMS",
    "R3GAN_PRESETS",
    "STYLEGAN2_PRESETS",
    "AEDiscriminator",
    "BayesGenerator",
    "BigGANDiscriminator",
    "BigGANGenerator",
    "CondInput",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "EqualConv",
    "EqualDense",
    "FastGANGenerator",
    "LipschitzDiscriminator",
    "MLPAutoencodingDiscriminator",
    "MLPDiscriminator",
    "MLPGenerator",
    "MinibatchDiscrimination",
    "Norm",
    "ProgressiveDiscriminator",
    "ProgressiveGenerator",
    "ProjectedDiscriminator",
    "R3Discriminator",
    "R3Generator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "SelfAttention",
    "SpectralConv",
    "SpectralDense",
    "SpectralUpConv",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "classifier_maps",
    "faded",
    "grouped_conv",
    "make_head",
    "minibatch_stddev",
    "modulated_conv",
    "pixel_norm",
    "progressive_schedule",
    "reconstruction_error",
    "spectral_norm",
    "standing_statistics",
]
