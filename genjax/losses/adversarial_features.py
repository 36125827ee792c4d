"""Losses on whole batches of the critic's features: kernel distances and feature matching.

`Critique.features` [B, F] is what the critic hands over (its whole output h(x), for these games); with
`of="logits"` the logits [B, F] are taken instead.
"""

import jax
import jax.numpy as jnp

from genjax.core.collectives import gather, pmean
from genjax.losses.adversarial_logits import AdversarialLoss
from genjax.losses.mmd import KERNELS, mmd2_unbiased, off_diagonal_mean


def make_kernel(kernel):
    """A kernel from a name in `KERNELS` or a function."""
    if callable(kernel):
        return kernel
    if kernel not in KERNELS:
        raise ValueError(f"kernel: expected one of {sorted(KERNELS)}, got {kernel!r}")
    return KERNELS[kernel]()


def reader(of):
    """Critique -> [B, F], by "features" or "logits"."""
    if of not in ("features", "logits"):
        raise ValueError(f"of: expected 'features' or 'logits', got {of!r}")

    def read(critique):
        found = getattr(critique, of)
        return found.reshape(len(found), -1).astype(jnp.promote_types(found.dtype, jnp.float32))

    return read


def _pair(read, r, f, axis_name):
    return gather((read(r), read(f)), axis_name)


def mmd(kernel="rq_star", of="features", axis_name=None):
    """MMD GAN (1801.01401, section 2): L_D = -MMD^2_u(h(x), h(G(z))), L_G = MMD^2_u; keep D in check by `witness`.

    Args:
      kernel: a name in `losses.mmd.KERNELS`, or a kernel.
      of: "features" or "logits", which of the critic's outputs is h.
      axis_name: axis over which the batch is split.
    """
    k, read = make_kernel(kernel), reader(of)

    def value(r, f):
        found = mmd2_unbiased(k, *_pair(read, r, f, axis_name))
        return found, {"mmd2": found}

    def d(r, f):
        found, aux = value(r, f)
        return -found, aux

    return AdversarialLoss(d, lambda f, r: (value(r, f)[0], {}), real_in_g=True, needs=(of,))


def cramer(of="features", axis_name=None):
    """Cramer GAN's energy distance 2 E|h - h'| - ... in the critic's features (1705.10743, section 4)."""
    return mmd("distance", of, axis_name)


def repulsive_mmd(kernel="rbf", of="features", axis_name=None):
    """Repulsive MMD loss (1812.09916, equation 4): L_D = E k(x, x') - E k(y, y') over i != j, L_G = MMD^2_u.

    Here x are reals and y generated: D spreads the reals and gathers what is generated.
    """
    k, read = make_kernel(kernel), reader(of)

    def d(r, f):
        x, y = _pair(read, r, f, axis_name)
        return off_diagonal_mean(k(x, x)) - off_diagonal_mean(k(y, y)), {"mmd2": mmd2_unbiased(k, x, y)}

    return mmd(k, of, axis_name)._replace(d=d)


def feature_matching(base, norm="l2", axis_name=None):
    """Feature matching (1606.03498, section 3.1): L_G = |E f(x) - E f(G(z))|^2; the critic keeps the base loss.

    Args:
      base: AdversarialLoss.
      norm: "l2", the squared distance of the means; "l1", the mean absolute difference (the paper's code).
      axis_name: axis over which the batch is split.
    """
    if norm not in ("l2", "l1"):
        raise ValueError(f"norm: expected 'l2' or 'l1', got {norm!r}")
    read = reader("features")

    def g(f, r):
        center = lambda critique: pmean(jnp.mean(read(critique), axis=0), axis_name)
        gap = center(f) - jax.lax.stop_gradient(center(r))
        return (jnp.sum(gap**2) if norm == "l2" else jnp.mean(jnp.abs(gap))), {}

    return base._replace(g=g, real_in_g=True, needs=(*base.needs, "features"))
