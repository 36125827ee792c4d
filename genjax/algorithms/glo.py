"""Generative latent optimization: a generator and one learned code a training image, no game (1707.05776).

min over theta, z_1 ... z_N of 1/N sum_i l(g_theta(z_i), x_i), |z_i| <= 1

Batches name their images: {"x": [B, ...], "index": int32 [B]} (`data.views.numbered`). A step moves theta and the
batch's codes along the gradients of the same loss, and the codes back into the ball. New samples are decoded from the
Gaussian with the codes' mean and covariance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.algorithms import parts
from genjax.algorithms.gan import trained_generator
from genjax.core.collectives import gather, pmean
from genjax.core.keys import fold, normal, per_sample
from genjax.core.types import Algorithm, State
from genjax.oracles.principal import principal_components


def project_ball(z):
    """z / max(|z|, 1), rows of z [..., d]."""
    square = jnp.sum(z * z, axis=-1, keepdims=True)
    return z * jax.lax.rsqrt(jnp.maximum(square, 1.0))


class CodeLaw(NamedTuple):
    """N(mean, root root^T), the Gaussian of a set of codes."""

    mean: jax.Array  # [d]
    root: jax.Array  # [d, d]

    def draw(self, keys, n):
        """n draws, [n, d]."""
        eps = normal(keys, (n, len(self.mean)), self.mean.dtype)
        return self.mean[None] + eps @ self.root.T

    def sample(self, keys, n):
        """n codes: draws, projected onto the ball, [n, d]."""
        return project_ball(self.draw(keys, n))


def fit_codes(codes):
    """The CodeLaw with the mean and the covariance of codes [N, d]; of full rank or not."""
    mean = jnp.mean(codes, axis=0)
    gap = codes - mean[None]
    values, vectors = jnp.linalg.eigh(gap.T @ gap / len(codes))
    return CodeLaw(mean, vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None])


def ball(dim):
    """Uniform in the unit ball of R^dim: (keys, n) -> [n, dim]."""

    def sample(keys, n):
        z = normal(fold(keys, 0), (n, dim), jnp.float32)
        u = jax.vmap(lambda key: jax.random.uniform(key))(per_sample(fold(keys, 1), n))
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True) * (u ** (1 / dim))[:, None]

    return sample


def principal_codes(x, dim):
    """Starting codes [N, dim] of images x [N, ...]: whitened principal components by sqrt(dim), in the ball.

    Hand them to `init` as priors["codes"].
    """
    found = principal_components(x, dim)
    white = found.encode(x) / np.sqrt(np.maximum(found.variances, 1e-12))
    return np.asarray(project_ball(jnp.asarray(white / np.sqrt(dim), jnp.float32)))


def glo(
    generator,
    loss,
    optimizer,
    code_optimizer,
    ema=None,
    *,
    num,
    dim=64,
    scale=1.0,
    train_codes=True,
    axis_name=None,
):
    """The recipe of generative latent optimization.

    Args:
      generator: Net called as (z [B, dim], None) -> x.
      loss: (made [B, ...], x [B, ...]) -> [B], such as `losses.pyramid.laplacian`.
      optimizer: Optax transform of the generator, under the mean over the batch.
      code_optimizer: Optax transform of a code [dim], under the loss of its own image: each code has its own
        optimizer state, which moves when the code does.
      ema: average of the generator's weights, or None.
      num: number of images, N.
      dim: of a code.
      scale: the generator is given scale * z; sqrt(dim) makes codes on the sphere as large as normal latents.
      train_codes: False leaves the codes where they begin, and learns a decoder of random codes.
      axis_name: axis over which the batch is split.

    Returns:
      Algorithm. State.params holds "generator"; State.extra "net", "codes" [N, dim] and "code_opt". `init` draws codes
      at random, normal and projected onto the ball, or takes priors["codes"]. `sample` draws from the codes'
      Gaussian. Metrics: loss, grad_norm, code_norm.

    Raises:
      ValueError: num or dim below 1.
    """
    if num < 1 or dim < 1:
        raise ValueError(f"num: expected num and dim of at least 1, got {num} and {dim}")

    def init(key, batch, priors=None):
        if "index" not in batch:
            raise ValueError(f"batch: expected a field 'index', the number of each image, got {sorted(batch)}")
        priors = priors or {}
        codes = priors.get("codes")
        if codes is None:
            codes = project_ball(normal(fold(key, 1), (num, dim), jnp.float32))
        codes = parts.copy(jnp.asarray(codes))
        if codes.shape != (num, dim):
            raise ValueError(f"codes: expected shape {(num, dim)}, got {codes.shape}")
        params, net = generator.init(fold(key, 0), scale * codes[: len(batch["x"])], None)
        params = {"generator": parts.copy(priors.get("generator", params))}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt={"generator": optimizer.init(params["generator"])},
            ema=() if ema is None else ema.init(params),
            extra={"net": {"generator": net}, "codes": codes, "code_opt": jax.vmap(code_optimizer.init)(codes)},
        )

    def step(key, state, batch):
        index, stored = batch["index"], state.extra["net"]["generator"]
        z = state.extra["codes"][index]
        rngs = {"noise": parts.draws(key, state.step, len(index), axis_name).local}

        def value(params, z):
            made, net = generator.apply(params, stored, scale * z, None, train=True, rngs=rngs)
            return jnp.mean(loss(made, batch["x"])), net

        (total, net), (grads, pull) = jax.value_and_grad(value, (0, 1), has_aux=True)(state.params["generator"], z)
        total, grads, net = pmean((total, grads, net), axis_name)
        updates, opt = optimizer.update(grads, state.opt["generator"], state.params["generator"])
        params = {"generator": optax.apply_updates(state.params["generator"], updates)}
        extra = {**state.extra, "net": {"generator": net}}
        if train_codes:
            rows = jax.tree.map(lambda a: a[index], extra["code_opt"])
            move, rows = jax.vmap(code_optimizer.update)(len(index) * pull, rows, z)
            every, new, rows = gather((index, project_ball(z + move), rows), axis_name)
            put = lambda a, values: a.at[every].set(values)
            extra.update(codes=put(extra["codes"], new), code_opt=jax.tree.map(put, extra["code_opt"], rows))
        new = state._replace(
            step=state.step + 1,
            params=params,
            opt={"generator": opt},
            ema=() if ema is None else ema.update(state.ema, params, state.step + 1),
            extra=extra,
        )
        norm = pmean(jnp.mean(jnp.linalg.norm(z, axis=-1)), axis_name)
        return new, {"loss": total, "grad_norm": optax.tree.norm(grads), "code_norm": norm}

    def sample(key, state, n, cond=None):
        if cond is not None:
            raise ValueError("cond: expected None, the generator of this recipe takes no condition")
        keys = per_sample(key, n)
        z = fit_codes(state.extra["codes"]).sample(fold(keys, 0), n)
        return decoder(generator, state, scale, ema)(z, key=fold(keys, 1))

    return Algorithm(init, step, sample)


def decoder(generator, state, scale=1.0, ema=None):
    """`decode(z [B, dim], key=None) -> x` of a State, by its averaged weights where there are any."""
    make = trained_generator(generator, state, ema)
    return lambda z, key=None: make(scale * z, None, key)
