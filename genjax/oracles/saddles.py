"""Saddle functions f(x, y) of two numbers, and noisy gradient descent in x with ascent in y, both at once.

  x_{n+1} = x_n - a(n) (f_x + noise),   y_{n+1} = y_n + b(n) (f_y + noise).

Both functions have their saddle at (0, 0). There the step's Jacobian says what small deviations do: they die out
where its eigenvalues lie inside the unit circle.
"""

import jax
import jax.numpy as jnp
import numpy as np


def quartic(x, y, height=100.0):
    """(1 + x^2) (height - y^2), the toy of 1706.08500, section 2."""
    return (1 + x * x) * (height - y * y)


def bilinear(x, y, damping=0.1):
    """x y + damping / 2 (x^2 - y^2): a turning field with a pull to the saddle."""
    return x * y + 0.5 * damping * (x * x - y * y)


def _step(f, x, y, a, b, noise_x=0.0, noise_y=0.0):
    f_x, f_y = jax.grad(f, (0, 1))(x, y)
    return x - a * (f_x + noise_x), y + b * (f_y + noise_y)


def descend_ascend(keys, f, start, rate_x, rate_y, steps, noise=1.0):
    """Paths of the two players, [S, steps, 2], after each step.

    Args:
      keys: [S], one a path.
      f: (x, y) -> scalar.
      start: (x, y) of every path.
      rate_x, rate_y: a and b: numbers, or functions of the step's number from 0.
      steps: number of steps.
      noise: standard deviation of the normal noise of both gradients.
    """
    a, b = (rate if callable(rate) else (lambda n, rate=rate: rate) for rate in (rate_x, rate_y))

    def path(key):
        eps = noise * jax.random.normal(key, (steps, 2))

        def body(point, inputs):
            n, e = inputs
            point = jnp.stack(_step(f, *point, a(n), b(n), *e))
            return point, point

        return jax.lax.scan(body, jnp.asarray(start, eps.dtype), (jnp.arange(steps), eps))[1]

    return jax.vmap(path)(keys)


def decaying(rate, power, scale=1000.0):
    """n -> rate (1 + n / scale)^-power: square-summable for power > 1/2, not summable for power <= 1."""
    return lambda n: rate * (1 + n / scale) ** -power


def growth(f, a, b):
    """The largest |eigenvalue| of a noiseless step's Jacobian at (0, 0), a float: below 1 where it is stable."""
    jacobian = jax.jacfwd(lambda p: jnp.stack(_step(f, *p, a, b)))(jnp.zeros(2))
    return float(np.max(np.abs(np.linalg.eigvals(np.asarray(jacobian, np.float64)))))


def bilinear_is_stable(a, b, damping=0.1):
    """Whether (1 + damping^2) a b < damping (a + b): that the step of `bilinear` is stable, for damping (a + b) < 2.

    The Jacobian has determinant 1 - damping (a + b) + (1 + damping^2) a b and trace 2 - damping (a + b).
    """
    return (1 + damping**2) * a * b < damping * (a + b)
