"""The discriminator of vectors that reconstructs what it is shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.losses.penalties import reconstruction
from genjax.networks import linen_net
from genjax.networks.gan import DISCRIMINATORS


def test_decoder_shares_the_trunk():
    """The penalty reaches the trunk and the decoder, the score reaches the trunk and the head alone; targets are
    constants of x. Catches a decoder beside the trunk, and a gradient into the picture."""
    net = linen_net(DISCRIMINATORS["mlp_autoencoding"](widths=(6, 5), decoder=(4,), output="tanh"))
    x = jax.random.uniform(jax.random.key(1), (3, 4, 2, 1), minval=-1.0, maxval=1.0)
    params, state = net.init(jax.random.key(0), x)
    assert state == {}

    def parts(params, x):
        critic = lambda y: net.apply(params, {}, y)[0]
        return jnp.mean(reconstruction()(None, critic, {"real": x})), jnp.sum(critic(x).logits)

    error, score = jax.jit(jax.jacrev(parts))(params, x)
    size = lambda tree: {name: sum(float(jnp.abs(v).sum()) for v in jax.tree.leaves(g)) for name, g in tree.items()}
    assert {n for n, v in size(error).items() if v > 0} == {"layer0", "layer1", "decoder0", "decoded"}
    assert {n for n, v in size(score).items() if v > 0} == {"layer0", "layer1", "head"}
    critique = net.apply(params, {}, x)[0]
    made = critique.extra["reconstructions"]["full"]
    assert critique.features.shape == (3, 5) and critique.logits.shape == (3,) and made.shape == x.shape
    by_hand = np.mean(np.abs(np.asarray(made) - np.asarray(x)), axis=(1, 2, 3))
    np.testing.assert_allclose(reconstruction()(None, lambda y: critique, {"real": x}), by_hand, rtol=1e-5)
    assert float(jnp.abs(made).max()) < 1
    with pytest.raises(ValueError, match="widths: expected at least one width"):
        linen_net(DISCRIMINATORS["mlp_autoencoding"](widths=())).init(jax.random.key(0), x)
