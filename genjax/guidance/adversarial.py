"""Unrestricted adversarial examples (AdvDiff, 2307.12499): samples of a class that a victim takes for another.

Two gentle guidances: `steps.nudged` towards a wrong class in the last part of the run, and, in an outer loop, a
new start from the gradient at the result, with the Jacobian of the whole run ignored.
"""

import jax
import jax.numpy as jnp

from genjax.core.numerics import bcast


def wrong_class(logits, label):
    """The most likely class but `label`, [B]: the second-ranked where the victim is right, else the top one."""
    own = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
    return jnp.argmax(jnp.where(own, -jnp.inf, logits), axis=-1)


def wrong_log_prob(victim, label):
    """x [B, ...] -> log p(the most likely wrong class | x) [B], the class chosen anew at every x.

    Args:
      victim: x -> logits [B, K].
      label: [B], of what the samples should be.
    """

    def log_prob(x):
        logits = victim(x)
        at = jax.lax.stop_gradient(wrong_class(logits, label))
        return jnp.take_along_axis(jax.nn.log_softmax(logits), at[:, None], axis=1)[:, 0]

    return log_prob


def restarted(run, log_prob, success, scale, rounds, std=1.0):
    """Noise-sampling guidance: x_T <- x_T + std^2 scale grad log_prob(x_0), until `success` (2307.12499, algorithm 1).

    A sample that has succeeded keeps its start. As the norm of x_T grows with the rounds, keep them few.

    Args:
      run: x_T [B, ...] -> x_0 [B, ...], deterministic.
      log_prob: x_0 -> [B], what is to rise.
      success: x_0 -> [B] bool.
      scale: scalar or [B].
      rounds: runs after the first, >= 0.
      std: of x_T, sigma(t_max).

    Returns:
      function x_T -> (x_0, x_T, success [B]), the starts after the last round.
    """
    if rounds < 0:
        raise ValueError(f"rounds: expected at least 0, got {rounds!r}")

    def restart(x_T):
        def body(carry, _):
            start, x, done = carry
            gradient = jax.grad(lambda x: jnp.sum(log_prob(x)))(x)
            moved = start + bcast(scale * std**2, start) * gradient
            start = jnp.where(bcast(done, start), start, moved).astype(start.dtype)
            again = run(start)
            x = jnp.where(bcast(done, x), x, again).astype(x.dtype)
            return (start, x, done | success(x)), None

        x = run(x_T)
        (start, x, done), _ = jax.lax.scan(body, (x_T, x, success(x)), None, length=rounds)
        return x, start, done

    return restart
