"""Joint diffusion of a signal and of structured noise (2302.05290): y = A x + scale n, a prior for each.

Signal and noise are one state, packed into a vector: its denoiser is the pair of both denoisers, its operator
[A, scale I]. Every posterior sampler then works on it as it is, and gives both.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from genjax.core.keys import fold
from genjax.core.trees import Packing, packing
from genjax.core.types import Measurement, Prediction
from genjax.inverse import noises, sampler
from genjax.inverse.gradient import dps, pigdm, tmpd
from genjax.inverse.operators import base
from genjax.inverse.projection import projection

METHODS = {"pigdm": pigdm, "tmpd": tmpd, "dps": dps, "projection": projection}
_SCALE_NAMES = {"projection": "weight"}


@struct.dataclass
class Sum:
    """y = A x + scale n over packed pairs {"noise", "signal"}.

    Attributes:
      operator: A.
      scale: of the noise; 1 - ratio in a blend ratio x + (1 - ratio) n.
      pack: the Packing of the pair.
    """

    operator: Any
    scale: Any
    pack: Packing = struct.field(pytree_node=False)

    @property
    def in_shape(self):
        return (sum(self.pack.sizes),)

    @property
    def out_shape(self):
        return self.operator.out_shape

    def forward(self, x, phi=None):
        pair = self.pack.unpack(x)
        return self.operator.forward(pair["signal"], phi) + jnp.asarray(self.scale, x.dtype) * pair["noise"]

    def adjoint(self, y):
        return self.pack.pack({"noise": jnp.asarray(self.scale, y.dtype) * y, "signal": self.operator.adjoint(y)})

    def pinv(self, y):
        """The pair of least norm with this sum."""
        return self.prox(jnp.zeros((y.shape[0], *self.in_shape), y.dtype), y, 0.0)

    prox = base.prox_cg


def joint_denoiser(signal, noise, pack):
    """The Denoiser of independent signal and noise, over packed pairs; two Denoisers under one process."""

    def denoiser(x, t, cond=None, key=None):
        pair = pack.unpack(x)
        n = noise(pair["noise"], t, None, fold(key, 0))
        s = signal(pair["signal"], t, cond, fold(key, 1))
        both = lambda a, b: pack.pack({"noise": a, "signal": b})
        return Prediction(x0=both(n.x0, s.x0), eps=both(n.eps, s.eps))

    return denoiser


def joint(
    noise_prior=None, method="pigdm", signal_scale=1.0, noise_scale=1.0, blend=1.0, residual_std=1e-2, **settings
):
    """Posterior sampling of signal and structured noise together; `detail` gives the noise too, as "noise".

    What the measurement says of its noise is not used: the noise prior stands for it.

    Args:
      noise_prior: Denoiser of the noise, of the measurement's shape, under the signal's process.
      method: in `METHODS`; "pigdm" takes one variance for all of x0, "tmpd" the denoisers' own covariances, with
        which it is exact for Gaussian signal and noise.
      signal_scale, noise_scale: of the guidance of either part (lambda and kappa).
      blend: factor of n in the measurement.
      residual_std: of what neither explains.
      settings: of the method (`steps`, `grid`, `eta`, ...).

    Raises:
      ValueError: no noise prior, an unknown method.
    """
    if noise_prior is None:
        raise ValueError("noise_prior: joint expected a Denoiser of the noise, got None")
    sampler.one_of(method, METHODS, "method")
    made = METHODS[method](**settings)

    def run(key, denoiser, process, measurement, like):
        shapes = {"noise": jax.ShapeDtypeStruct(measurement.y.shape, like.dtype), "signal": like}
        pack = packing(shapes)
        sizes = dict(zip(("noise", "signal"), pack.sizes))  # leaves of a dict are in the order of their names
        scale = jnp.concatenate(
            [jnp.full((1, sizes[name]), value) for name, value in (("noise", noise_scale), ("signal", signal_scale))],
            axis=1,
        )
        inner = METHODS[method](**{_SCALE_NAMES.get(method, "scale"): scale}, **settings)
        both = Measurement(Sum(measurement.operator, blend, pack), noises.Gaussian(residual_std), measurement.y)
        start = jnp.zeros((like.shape[0], sum(pack.sizes)), like.dtype)
        x, _ = inner.run(key, joint_denoiser(denoiser, noise_prior, pack), process, both, start)
        pair = pack.unpack(x)
        return pair["signal"], {"noise": pair["noise"]}

    needs = () if method == "dps" else ("adjoint",)
    return sampler.PosteriorSampler("joint", run, needs, made.nfe, made.vjps)
