"""Games without a generator network: particles that follow the gradient of a critic made anew at every step.

game = KERNEL_GAMES["ipm"]
critic = kernel_critic(game, ntk_relu(), tau=1.0)
x, path = particles(key, critic, game.particle, x0, y, eta=0.1, steps=300)
"""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.core.types import Critique
from genjax.losses.adversarial import wasserstein


def kernel_critic(game, kernel, tau=1.0):
    """(key, real, fake) -> f, the closed form of a `losses.kernel_critic.KernelGame`; it draws nothing."""
    return lambda key, real, fake: game.critic(kernel, tau, real, fake)


def trained_critic(net, tau=1.0, steps=20, loss=None):
    """(key, real, fake) -> f, a new network trained by `steps` of gradient descent for a time tau in all.

    Args:
      net: Net called as x [N, d] -> [N], in the parameterization of neural tangent kernels (`networks.wide`).
      loss: AdversarialLoss of the critic, Wasserstein's where None.
    """
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    objective = (loss or wasserstein()).d

    def critic(key, real, fake):
        params, state = net.init(key, real)
        call = lambda params, x: net.apply(params, state, x)[0]
        value = lambda params: jnp.mean(objective(Critique(call(params, real)), Critique(call(params, fake)))[0])

        def descend(params, _):
            return jax.tree.map(lambda p, g: p - tau / steps * g, params, jax.grad(value)(params)), None

        params = jax.lax.scan(descend, params, None, steps)[0]
        return lambda at: call(params, at)

    return critic


def particles(key, critic, loss, x, y, eta, steps, measure=None):
    """x_i <- x_i - eta grad loss(f(x_i)) with a new f against the data y at every step (2106.05566).

    Args:
      key: for critics that draw.
      critic: (key, real [M, d], fake [N, d]) -> (at [T, d] -> f [T]).
      loss: f -> the loss of a particle, elementwise.
      x, y: particles [N, d] and data [M, d].
      eta: step size, of each particle's own loss (not of the mean over particles).
      steps: number of steps.
      measure: x -> anything, taken before every step; None for nothing.

    Returns:
      (x [N, d] at the end, [steps, ...] of what was measured).
    """

    def step(x, i):
        f = critic(fold(key, i), y, x)
        slope = jax.grad(lambda at: jnp.sum(loss(f(at))))(x)
        return x - eta * slope, None if measure is None else measure(x)

    return jax.lax.scan(step, x, jnp.arange(steps))
