"""Late constraint (LaCon, 2305.11520): guidance by a condition that is read from the denoiser's own features.

An aligner R(features, t) was trained to predict a condition (edges, colours, a mask) from the features of the frozen
denoiser at any noise level; at sampling the gradient of its misfit to the wanted condition steers eps,

  eps <- eps + w g |eps - x_t| / |g|,    g = grad_{x_t} mean (R(F(x_t), t) - target)^2,

norms over a whole sample.
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast, mean_except_batch, safe_div, safe_norm
from genjax.core.prediction import with_eps
from genjax.solvers.levels import choose


def _norm(x):
    return bcast(safe_norm(x.reshape(x.shape[0], -1), axis=1), x)


def late_constraint(aligners, targets, scale=1.0, above=0.5, normalize=True):
    """Guidance by the aligners' misfit, where t > above; elsewhere the denoiser as it is.

    Args:
      aligners: one (features, t [B]) -> array [B, ...], or a list of them, whose gradients are added.
      targets: what each should give, [B, ...], or a list.
      scale: w, about 1; above 2 to 3 pictures break. Scalar or [B].
      above: time; the noisy part of the run is steered.
      normalize: by the norms; else eps gains w g.

    Raises:
      ValueError: another number of targets; a denoiser whose predictions hold no features.
    """
    aligners = aligners if isinstance(aligners, list | tuple) else [aligners]
    targets = targets if isinstance(targets, list | tuple) else [targets]
    if len(aligners) != len(targets):
        raise ValueError(f"targets: expected one an aligner ({len(aligners)}), got {len(targets)}")

    def guidance(denoiser, process):
        def guided(x, t, cond=None, key=None):
            def misfit(aligner, target, features):
                read = aligner(features, jnp.broadcast_to(jnp.asarray(t).reshape(-1), x.shape[:1]))
                return jnp.sum(mean_except_batch((read - target) ** 2))

            def features_of(x):
                pred = denoiser(x, t, cond, key)
                if pred.features is None:
                    raise ValueError("denoiser: late_constraint expected predictions with features, got none")
                return pred.features, pred

            def steer():
                features, pullback, pred = jax.vjp(features_of, x, has_aux=True)
                change = jnp.zeros_like(x)
                for aligner, target in zip(aligners, targets):
                    slope = jax.grad(lambda f, a=aligner, y=target: misfit(a, y, f))(features)
                    g = pullback(slope)[0]
                    if normalize:
                        g = g * safe_div(_norm(pred.eps - x), _norm(g))
                    change = change + g
                eps = pred.eps + bcast(scale, x) * change
                return with_eps(pred, eps.astype(x.dtype), x, process, t)

            return choose(jnp.asarray(t) > above, steer, lambda: denoiser(x, t, cond, key))

        return guided

    return guidance
