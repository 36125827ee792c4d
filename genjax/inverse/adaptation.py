"""Adapting the denoiser to one measurement along the way (DDIP and D3IP, 2407.10641), through low-rank weights.

At each level a few steps of AdamW on the adapters lower the misfit of the network's own estimate after one
conjugate-gradient step towards the data; then all slices are denoised with them and made consistent. The adapters
are kept from level to level; every sample (an image, or a volume whose slices share them) has its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.core.keys import fold, per_sample
from genjax.core.numerics import bcast
from genjax.inverse import sampler
from genjax.inverse.linear import conjugate_gradients
from genjax.inverse.operators.wrappers import Slices
from genjax.networks.lora import lora_init, lora_merge


@dataclasses.dataclass(frozen=True)
class Adaptable:
    """A Denoiser whose adapters can be tuned; called as it is, it is the one with `adapters`.

    Attributes:
      make: adapters -> Denoiser.
      adapters: any pytree of arrays.
    """

    make: Callable
    adapters: Any

    def __call__(self, x, t, cond=None, key=None):
        return self.make(self.adapters)(x, t, cond, key)


def with_lora(key, make, params, rank=4, pattern="kernel$"):
    """The Adaptable of `make`: parameters -> Denoiser, with low-rank adapters on `params`."""
    return Adaptable(lambda adapters: make(lora_merge(params, adapters)), lora_init(key, params, rank, pattern))


def deep_prior(
    slices=3, updates=10, rate=1e-3, cg_steps=5, eta=0.85, low=0.08, high=100.0, same_noise=False, steps=50,
    grid="cosine",
):  # fmt: skip
    """DDIP (images) and D3IP (volumes, operators `Slices`), 2407.10641, algorithms 1 and 2; linear operators.

    Its denoiser is an `Adaptable` of images; `nfe` counts updates at all levels. `detail` gives the adapters, with a
    leading axis [B]. Samples are restored one after another, as each has a network of its own.

    Args:
      slices: drawn without replacement for each update of a volume's adapters; at most all.
      updates: of AdamW at each level, with fresh moments; 0 leaves the denoiser as it is.
      rate: of AdamW.
      cg_steps: on A^T A x = A^T y from the denoised slices: few, as the start carries the prior.
      eta: share of fresh noise, x_s = alpha_s x0 + sigma_s (eta n + sqrt(1 - eta^2) eps).
      low, high: sigma / alpha between which adaptation runs; about the published levels 20 to 980 of 1000.
      same_noise: the slices of a volume share their random numbers.
    """
    sampler.at_least(steps, 2, "steps")
    sampler.at_least(slices, 1, "slices")
    optimizer = optax.adamw(rate)

    def run(key, denoiser, process, measurement, like):
        whole = measurement.operator
        operator = whole.operator if isinstance(whole, Slices) else whole
        depth = whole.depth if isinstance(whole, Slices) else 1
        count, ts = min(slices, depth), sampler.times(process, steps, grid)
        normal = lambda x: operator.adjoint(operator.forward(x))
        ending = lambda x, y, n: conjugate_gradients(normal, operator.adjoint(y), x, n)

        def noise(key, x):
            one = x[:1] if same_noise else x
            return jnp.broadcast_to(jax.random.normal(key, one.shape, x.dtype), x.shape)

        def adapt(key, adapters, x, y, t):
            def misfit(adapters, chosen, key):
                x0 = denoiser.make(adapters)(x[chosen], t, None, key).x0
                return jnp.mean((operator.forward(ending(x0, y[chosen], 1)) - y[chosen]) ** 2)

            def body(carry, i):
                adapters, memory = carry
                here = fold(key, i)
                chosen = jax.random.permutation(fold(here, 1), depth)[:count]
                slope = jax.grad(misfit)(adapters, chosen, fold(here, 0))
                change, memory = optimizer.update(slope, memory, adapters)
                return (optax.apply_updates(adapters, change), memory), None

            return jax.lax.scan(body, (adapters, optimizer.init(adapters)), jnp.arange(updates))[0][0]

        def one(sample):
            """Restores one image or volume, as slices [Z, H, W, C]."""
            key, y = sample
            inner = fold(key, 1)

            def step(i, carry, t, s):
                x, adapters = carry
                here = fold(inner, i)
                r = sampler.ratio(process, t)
                inside = (r >= low) & (r <= high)
                tuned = lambda a: adapt(fold(here, 1), a, x, y, t)
                adapters = jax.lax.cond(inside, tuned, lambda a: a, adapters)
                pred = denoiser.make(adapters)(x, t, None, fold(here, 0))
                x0 = ending(pred.x0, y, cg_steps)
                mixed = eta * noise(fold(here, 2), x) + jnp.sqrt(1 - eta**2) * pred.eps
                new = bcast(process.alpha(s), x) * x0 + bcast(process.sigma(s), x) * mixed
                return new.astype(x.dtype), adapters

            x = sampler.scaled(
                process.sigma(ts[0]), noise(fold(key, 0), jnp.zeros((depth, *operator.in_shape), like.dtype))
            )
            return sampler.scan_steps(step, (x, denoiser.adapters), ts)

        y = measurement.y.reshape(like.shape[0], depth, *operator.out_shape)
        x, adapters = jax.lax.map(one, (per_sample(key, like.shape[0]), y))
        return x.reshape(like.shape), {"adapters": adapters}

    return sampler.PosteriorSampler("deep_prior", run, ("adjoint", "adaptable"), steps * (1 + updates))
