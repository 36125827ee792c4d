"""The toolkit's R3GAN and StyleGAN2 networks in plain PyTorch, functions of a tree of tensors with its weights.

As in the published code: grouped convolutions are PyTorch's own, filters are depthwise convolutions, a modulated
convolution scales its input and its output while training.
"""

import math

import jax
import numpy as np
import torch
import torch.nn.functional as F

FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
ROOT2 = math.sqrt(2)


def filtered(x, pad, gain=1.0, stride=1):
    """x filtered along both axes, sum `gain` an axis, every `stride`-th value."""
    c, f = x.shape[1], gain * FIR
    x = F.conv2d(x, f.view(1, 1, 4, 1).expand(c, 1, 4, 1), stride=(stride, 1), padding=(pad, 0), groups=c)
    return F.conv2d(x, f.view(1, 1, 1, 4).expand(c, 1, 1, 4), stride=(1, stride), padding=(0, pad), groups=c)


def up(x):
    f = 4 * torch.outer(FIR, FIR)
    return F.conv_transpose2d(x, f.expand(x.shape[1], 1, 4, 4), stride=2, padding=1, groups=x.shape[1])


def down(x):
    return filtered(x, 1, stride=2)


def leaky(x, gain=1.0):
    y = F.leaky_relu(x, 0.2)
    return y if gain == 1 else gain * y


# R3GAN


def r3_block(p, x, groups):
    y = leaky(F.conv2d(x, p["expand"]["kernel"]) + p["bias0"][None, :, None, None])
    y = F.conv2d(y, p["kernel"], padding=1, groups=groups)
    y = leaky(y + p["bias1"][None, :, None, None])
    return x + F.conv2d(y, p["project"]["kernel"])


def r3_generator(p, z, fields):
    """z [B, L] -> [B, C, H, W], of one width."""
    h = p["basis"].permute(2, 0, 1)[None] * F.linear(z, p["linear"]["kernel"])[:, :, None, None]
    for i in range(levels(fields)):
        h = up(h) if i else h
        for j in range(fields["blocks"]):
            h = r3_block(p[f"block{i}_{j}"], h, fields["groups"][0])
    return F.conv2d(h, p["output"]["kernel"])


def r3_discriminator(p, x, fields):
    """x [B, C, H, W] -> logits [B]."""
    h, n = F.conv2d(x, p["input"]["kernel"]), levels(fields)
    for i in reversed(range(n)):
        h = down(h) if i < n - 1 else h
        for j in range(fields["blocks"]):
            h = r3_block(p[f"block{i}_{j}"], h, fields["groups"][0])
    return F.linear((h * p["basis"].permute(2, 0, 1)[None]).sum((2, 3)), p["linear"]["kernel"])[:, 0]


def levels(fields):
    return int(math.log2(fields["shape"][0] / 4)) + 1


# StyleGAN2


def scaled(kernel, multiplier=1.0):
    """A kernel [O, ...] with its equalized learning rate."""
    return kernel * (multiplier / math.sqrt(kernel[0].numel()))


def equal_dense(p, x, multiplier=1.0):
    return F.linear(x, scaled(p["kernel"], multiplier), p["bias"] * multiplier)


def equal_conv(p, x):
    k = scaled(p["kernel"])
    return F.conv2d(x, k, p.get("bias"), padding=k.shape[-1] // 2)


def mapping(p, z):
    h = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for i in range(len(p)):
        h = leaky(equal_dense(p[f"layer{i}"], h, 0.01), ROOT2)
    return h


def modulated(p, x, w, grow=False, demodulate=True):
    styles, k = equal_dense(p["style"], w), scaled(p["kernel"])
    y = x * styles[:, :, None, None]
    if grow:
        y = filtered(F.conv_transpose2d(y, k.transpose(0, 1), stride=2), 1, gain=2.0)
    else:
        y = F.conv2d(y, k, padding=k.shape[-1] // 2)
    if demodulate:
        y = y * (styles.square() @ k.square().sum((2, 3)).t() + 1e-8).rsqrt()[:, :, None, None]
    return y


def style_layer(p, x, w, noise, grow=False):
    y = modulated(p, x, w, grow) + p["noise_strength"] * noise
    return leaky(y + p["bias"][None, :, None, None], ROOT2)


def to_rgb(p, x, w):
    return modulated(p, x, w, demodulate=False) + p["bias"][None, :, None, None]


def constant_noise(fields):
    """The toolkit's fixed noise of each layer, [1, 1, H, H]."""
    sizes = [4] + [4 * 2**i for i in range(1, levels(fields)) for _ in range(2)]
    draw = lambda i, n: np.asarray(jax.random.normal(jax.random.key(i), (1, n, n, 1)))
    return [torch.tensor(draw(i, n)).permute(0, 3, 1, 2) for i, n in enumerate(sizes)]


def synthesis(p, ws, noise):
    """Styles [B, N, D] -> [B, C, H, H]."""
    h = p["constant"].permute(2, 0, 1)[None].expand(len(ws), -1, -1, -1)
    h = style_layer(p["conv0"], h, ws[:, 0], noise[0])
    x = to_rgb(p["rgb0"], h, ws[:, 1])
    for i in range(1, len(noise) // 2 + 1):
        h = style_layer(p[f"up{i}"], h, ws[:, 2 * i - 1], noise[2 * i - 1], True)
        h = style_layer(p[f"conv{i}"], h, ws[:, 2 * i], noise[2 * i])
        x = up(x) + to_rgb(p[f"rgb{i}"], h, ws[:, 2 * i + 1])
    return x


def styles(p, z, count):
    """Latents [B, L] -> [B, N, D]."""
    return mapping(p["mapping"], z)[:, None].repeat(1, count, 1)


def style_block(p, x):
    skip = F.conv2d(down(x), scaled(p["skip"]["kernel"]))
    y = leaky(equal_conv(p["conv0"], x), ROOT2)
    y = F.conv2d(filtered(y, 2), scaled(p["conv1"]["kernel"]), p["conv1"]["bias"], stride=2)
    return (leaky(y, ROOT2) + skip) / ROOT2


def style_discriminator(p, x, fields):
    """x [B, C, H, W] -> logits [B]."""
    h = leaky(equal_conv(p["input"], x), ROOT2)
    for i in reversed(range(1, levels(fields))):
        h = style_block(p[f"block{i}"], h)
    b, c, n, m = h.shape
    group = min(4, b)
    spread = (h.reshape(-1, group, c, n, m).var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    spread = spread.repeat_interleave(group)[:, None, None, None].expand(b, 1, n, m)
    h = leaky(equal_conv(p["conv"], torch.cat([h, spread], 1)), ROOT2)
    h = leaky(equal_dense(p["dense"], h.permute(0, 2, 3, 1).reshape(b, -1)), ROOT2)
    return equal_dense(p["linear"], h)[:, 0]
