"""Networks: Flax Linen modules called as `module(x, noise, cond=None, train=False)`.

x is [B, ...], `noise` the number [B] of `core.denoiser.NOISE_INPUTS`, `cond` a dict (see `conditioning`).
Denoising networks return an array of x's shape (last axis `out_channels`), or with
`return_features=True` a pair with a dict of named activations; classifiers return (logits, features).
"""

from genjax.networks.blocks import Attention, Fourier, GroupNorm, downsample, group_norm, sinusoidal, upsample
from genjax.networks.classifier import CNNClassifier, MLPClassifier
from genjax.networks.conditioning import CondVector, NoiseCond, Tokens, check_cond, concat_image
from genjax.networks.convolution import Conv, conv
from genjax.networks.edm2 import MPMLP, EDM2UNet, Uncertainty
from genjax.networks.magnitude import MPConv, MPDense, force_normalize, mp_cat, mp_silu, mp_sum, normalize
from genjax.networks.mlp import MLP
from genjax.networks.net import linen_net
from genjax.networks.transformer import DiT, UViT, patchify, unpatchify
from genjax.networks.unet import UNet

NETWORKS = {
    # name: constructor of the module
    "mlp": MLP,
    "unet": UNet,
    "dit": DiT,
    "uvit": UViT,
    "edm2_unet": EDM2UNet,
    "edm2_mlp": MPMLP,
    "cnn_classifier": CNNClassifier,
    "mlp_classifier": MLPClassifier,
}

__all__ = [
    "MLP",
    "MPMLP",
    "NETWORKS",
    "Attention",
    "CNNClassifier",
    "CondVector",
    "Conv",
    "DiT",
    "EDM2UNet",
    "Fourier",
    "GroupNorm",
    "MLPClassifier",
    "MPConv",
    "MPDense",
    "NoiseCond",
    "Tokens",
    "UNet",
    "UViT",
    "Uncertainty",
    "check_cond",
    "concat_image",
    "conv",
    "downsample",
    "force_normalize",
    "group_norm",
    "linen_net",
    "mp_cat",
    "mp_silu",
    "mp_sum",
    "normalize",
    "patchify",
    "sinusoidal",
    "unpatchify",
    "upsample",
]
