"""The bound of variational autoencoders."""

import jax.numpy as jnp

from genjax.core.keys import fold, normal
from genjax.core.numerics import sum_except_batch


def standard_kl(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, summed: [B, L] -> [B] (1312.6114, appendix B)."""
    return 0.5 * sum_except_batch(mean**2 + jnp.exp(log_var) - 1 - log_var)


def negative_elbo(latent, std=1.0, beta=1.0, name="autoencoder"):
    """A Loss: -log N(x; decoded, std^2) + beta KL(q(z | x) || N(0, I)), in nats (1312.6114, eq. 10).

    For beta = 1 its mean is an upper bound of -log p(x) of the model z ~ N(0, I), x ~ N(decoder(z), std^2).

    Args:
      latent: size of z.
      std: of the decoder's noise, > 0.
      beta: weight of the KL (1804.03599 has it above 1).
      name: of the network in `models`, called as (x, eps) -> (decoded, mean, log-variance).
    """
    if not std > 0:
        raise ValueError(f"std: expected a number > 0, got {std}")

    def loss(keys, models, batch):
        x = batch["x"]
        decoded, mean, log_var = models[name](x, normal(fold(keys, 1), (len(x), latent), x.dtype))
        size = x.size // len(x)
        fit = 0.5 * sum_except_batch((x - decoded) ** 2) / std**2 + size * jnp.log(std * jnp.sqrt(2 * jnp.pi))
        kl = standard_kl(mean, log_var)
        return fit + beta * kl, {"fit": fit, "kl": kl}

    return loss
