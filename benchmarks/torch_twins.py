"""The toolkit's networks in plain PyTorch, functions of a tree of tensors that holds the toolkit's weights.

Images are [B, C, H, W], as PyTorch's convolutions have them; kernels are carried into its order of axes.
"""

import jax
import numpy as np
import torch
import torch.nn.functional as F

from genjax.networks.blocks import positions


def image(a):
    """A tensor [B, C, H, W] of an array [B, H, W, C]."""
    return torch.tensor(np.asarray(a)).permute(0, 3, 1, 2).contiguous()


def carried(tree):
    """The tree with tensors for arrays, kernels in PyTorch's order of axes."""

    def one(path, a):
        a = np.asarray(a)
        if path[-1].key == "kernel" and a.ndim > 1:
            a = a.transpose((3, 2, 0, 1) if a.ndim == 4 else (1, 0))
        return torch.tensor(np.ascontiguousarray(a))

    return jax.tree_util.tree_map_with_path(one, tree)


def sinusoidal(values, dim):
    half = dim // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / (half - 1))
    angles = values[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], 1)


def linear(p, x):
    return F.linear(x, p["kernel"], p.get("bias"))


def conv2d(p, x):
    return F.conv2d(x, p["kernel"], p["bias"], padding=p["kernel"].shape[-1] // 2)


def group_norm(p, x):
    groups = min(32, x.shape[1] // 4)
    while x.shape[1] % groups:
        groups -= 1
    return F.group_norm(x, groups, p["scale"], p["bias"], 1e-5)


def attention(p, x, heads):
    """Over tokens x [B, T, C]."""
    b, t, c = x.shape
    q, k, v = linear(p["qkv"], x).view(b, t, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    return linear(p["out"], y.transpose(1, 2).reshape(b, t, c))


def embedding(p, noise, label, features, late):
    """The vector that modulates the blocks."""
    table = p["cond"]["label"] if label is not None else None
    vector = 0 if table is None else table[label]  # the null label -1 is the last row
    h = sinusoidal(noise, features)
    h = h if late else h + vector
    h = linear(p["layer1"], F.silu(linear(p["layer0"], h)))
    return F.silu(h + vector if late else h)


def unet_block(p, x, emb, c, resample, heads):
    move = {
        "keep": lambda v: v,
        "up": lambda v: F.interpolate(v, scale_factor=2, mode="nearest"),
        "down": lambda v: F.avg_pool2d(v, 2),
    }[resample]
    skip = move(x)
    h = conv2d(p["conv0"], move(F.silu(group_norm(p["norm0"], x))))
    vector = linear(p["affine"], emb)[:, :, None, None]
    if c["scale_shift"]:
        scale, shift = vector.chunk(2, 1)
        h = F.silu(torch.addcmul(shift, group_norm(p["norm1"], h), 1 + scale))
    else:
        h = F.silu(group_norm(p["norm1"], h + vector))
    h = conv2d(p["conv1"], h)
    x = ((conv2d(p["skip"], skip) if "skip" in p else skip) + h) * c["skip_scale"]
    if heads:
        tokens = group_norm(p["norm2"], x).flatten(2).transpose(1, 2)
        y = attention(p["attention"], tokens, heads)
        x = (x + y.transpose(1, 2).reshape(x.shape)) * c["skip_scale"]
    return x


def unet(p, x, noise, label, c):
    """The U-Net of fields `c` on x [B, C, H, W]."""
    emb = embedding(p["embed"], noise, label, c["channels"], c["late_cond"])
    width, levels = c["channels"], len(c["multipliers"])

    def block(name, h, attend=False, resample="keep"):
        channels = p[name]["conv0"]["kernel"].shape[0]
        heads = (c["heads"] or max(1, channels // c["head_channels"])) if attend else 0
        return unet_block(p[name], h, emb, c, resample, heads)

    assert p["input"]["kernel"].shape[0] == width
    h = conv2d(p["input"], x)
    skips = [h]
    for level in range(levels):
        size = x.shape[2] >> level
        if level:
            h = block(f"down{size}", h, resample="down")
            skips.append(h)
        for i in range(c["num_blocks"]):
            h = block(f"enc{size}_{i}", h, size in c["attention"])
            skips.append(h)
    h = block("middle1", block("middle0", h, True))
    for level in reversed(range(levels)):
        size = x.shape[2] >> level
        if level < levels - 1:
            h = block(f"up{size}", h, resample="up")
        for i in range(c["num_blocks"] + 1):
            attend = size in c["attention"] and (c["decoder_attention"] == "all" or i == c["num_blocks"])
            h = block(f"dec{size}_{i}", torch.cat([h, skips.pop()], 1), attend)
    return conv2d(p["output"], F.silu(group_norm(p["norm"], h)))


def dit(p, x, noise, label, c):
    """DiT of fields `c` on x [B, C, H, W]."""
    (b, channels, size, _), dim, patch = x.shape, c["dim"], c["patch"]
    emb = embedding(p["embed"], noise, label, c["noise_dim"], True)
    kernel = p["input"]["kernel"].view(dim, patch, patch, channels).permute(0, 3, 1, 2)
    h = F.conv2d(x, kernel, p["input"]["bias"], stride=patch).flatten(2).transpose(1, 2)
    h = h + torch.as_tensor(positions((size // patch,) * 2, dim))
    norm = lambda h, shift, scale: F.layer_norm(h, (dim,), eps=1e-6) * (1 + scale) + shift
    for i in range(c["depth"]):
        q = p[f"block{i}"]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = linear(q["modulation"], emb)[:, None].chunk(6, 2)
        h = h + gate_a * attention(q["attention"], norm(h, shift_a, scale_a), c["heads"])
        y = F.gelu(linear(q["mlp_in"], norm(h, shift_m, scale_m)), approximate="tanh")
        h = h + gate_m * linear(q["mlp_out"], y)
    shift, scale = linear(p["modulation"], emb)[:, None].chunk(2, 2)
    h = linear(p["output"], norm(h, shift, scale)).view(b, size // patch, size // patch, patch, patch, -1)
    return h.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, size, size)
