"""Penalties on linear and quadratic critics, whose gradients are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.types import Critique
from genjax.losses import penalties as p
from genjax.losses.mmd import linear

W = jnp.array([[0.6, -1.2], [0.3, 0.9]])  # of a critic of images [B, 2, 2]
NORM = float(np.linalg.norm(W))
KEY = jax.random.key(0)


def flat_critic(x, cond=None):
    """D(x) = <W, x> + 0.5; its gradient is W everywhere."""
    return Critique(jnp.sum(W[None] * x, axis=(1, 2)) + 0.5, x.reshape(len(x), -1))


def bowl(x, cond=None):
    """D(x) = |x|^2 / 2; its gradient is x."""
    return Critique(0.5 * jnp.sum(x**2, axis=(1, 2)), x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=(5, 2, 2)), jnp.float32) for name in ("real", "fake")}


def run(penalty, critic, x, keys=KEY):
    """The penalty in one program."""
    return jax.jit(lambda keys, x: penalty(keys, critic, x))(keys, x)


def squares(x):
    return np.sum(np.square(x), axis=(1, 2))


@pytest.mark.parametrize(
    "make, exact",
    [
        (p.r1, 0.5 * NORM**2),
        (p.r2, 0.5 * NORM**2),
        (p.PENALTIES["r1_r2"], NORM**2),
        (p.gradient_penalty, (NORM - 1) ** 2),
        (lambda: p.gradient_penalty(3.0), (NORM - 3) ** 2),
        (lambda: p.gradient_penalty(3.0, one_sided=True), 0.0),
        (p.zero_centred, NORM**2),
        (p.dragan, (NORM - 1) ** 2),
        (p.max_gp, NORM**2),
    ],
)
def test_linear_critic(points, make, exact):
    """A norm over the batch, a forgotten root or a missing half would show."""
    np.testing.assert_allclose(run(make(), flat_critic, points), exact, rtol=1e-5, atol=1e-7)


def test_quadratic_critic(points):
    real, fake = np.asarray(points["real"]), np.asarray(points["fake"])
    np.testing.assert_allclose(run(p.r1(), bowl, points), 0.5 * squares(real), rtol=1e-5)
    np.testing.assert_allclose(run(p.r2(), bowl, points), 0.5 * squares(fake), rtol=1e-5)
    same = {"real": points["real"], "fake": points["real"]}  # then every point between is that point
    np.testing.assert_allclose(run(p.gradient_penalty(), bowl, same), (np.sqrt(squares(real)) - 1) ** 2, rtol=1e-4)
    np.testing.assert_allclose(run(p.max_gp(), bowl, same), squares(real).max(), rtol=1e-5)
    # interpolates: gradient x^ = u real + (1 - u) fake, u the same over an image, another for each
    between = run(p.zero_centred(), bowl, {"real": jnp.ones((64, 2, 2)), "fake": jnp.zeros((64, 2, 2))})
    u = np.sqrt(between) / 2
    assert 0 <= u.min() < 0.1 < 0.9 < u.max() <= 1 and abs(u.mean() - 0.5) < 0.15


def test_dragan_looks_around_reals_alone(points):
    """|x + delta| with 0 <= delta <= 0.5 std(x): within that distance of the real, and never at the fake."""
    penalty = run(p.dragan(target=0.0), bowl, {"real": jnp.full((200, 2, 2), 3.0), "fake": points["fake"]})
    np.testing.assert_allclose(penalty, 36.0, rtol=1e-5)  # no spread, no noise
    real = jnp.asarray(np.random.default_rng(0).normal(size=(500, 2, 2)), jnp.float32)
    line = lambda x, cond=None: Critique(0.5 * jnp.sum(x[:, 0, 0, None] ** 2, axis=1))  # gradient x_00
    moved = np.sqrt(run(p.dragan(target=0.0), line, {"real": jnp.abs(real)})) - np.abs(real[:, 0, 0])
    std = float(jnp.std(jnp.abs(real)))
    assert moved.min() >= -1e-6 and 0.4 * std < moved.max() <= 0.5 * std and moved.std() > 0.05 * std


def test_gradient_at_zero_is_finite(points):
    """The norm's root at a zero gradient would give NaN to the critic's parameters."""

    def total(scale):
        dead = lambda x, cond=None: Critique(scale * jnp.sum(0.0 * x, axis=(1, 2)))
        return sum(jnp.mean(run(p.PENALTIES[n](), dead, points)) for n in ("gradient_penalty", "max_gp", "dragan"))

    assert np.isfinite(jax.jit(jax.grad(total))(1.0))


def test_weights_feel_the_penalty(points):
    """d/dw of 1/2 |w|^2 is w: the penalty must be differentiable through the inner gradient."""
    value = lambda w: jnp.mean(p.r1()(KEY, lambda x, cond=None: Critique(jnp.sum(w[None] * x, axis=(1, 2))), points))
    np.testing.assert_allclose(jax.jit(jax.grad(value))(W), W, rtol=1e-6)


def test_fakes_keep_their_own_condition(points):
    """R2 asks for the fakes' labels where these differ from the reals'."""
    seen = lambda x, cond=None: Critique((2.0 if cond else 1.0) * jnp.sum(x, axis=(1, 2)))
    plain = run(p.r2(), seen, points)
    other = run(p.r2(), seen, {**points, "fake_cond": {"label": jnp.zeros(5, int)}})
    np.testing.assert_allclose(other, 4 * plain, rtol=1e-6)


def test_witness_of_a_linear_kernel(points):
    """f(t) = <t, mean real - mean fake>, so its gradient is the gap of the means."""
    gap = np.linalg.norm(np.mean(points["real"] - points["fake"], axis=0))
    value = run(p.witness(linear()), flat_critic, points)
    np.testing.assert_allclose(value, (gap - 1) ** 2, rtol=1e-4)


def test_coherency_is_the_slope_along_the_direction(points):
    asked = {"label": jnp.zeros(5, int)}
    tempered = {**points, "between": points["real"], "direction": points["fake"], "between_cond": asked}
    along = np.sum(np.asarray(W)[None] * np.asarray(points["fake"]), axis=(1, 2))
    np.testing.assert_allclose(run(p.coherency(), flat_critic, tempered), along**2, rtol=1e-5)
    along = np.sum(np.asarray(points["real"] * points["fake"]), axis=(1, 2))
    np.testing.assert_allclose(run(p.coherency(), bowl, tempered), along**2, rtol=1e-4)
    with pytest.raises(ValueError, match="coherency: expected a tempered game"):
        run(p.coherency(), bowl, points)


def test_drift_and_output(points):
    logits = np.asarray(flat_critic(points["real"]).logits)
    np.testing.assert_allclose(run(p.drift(), flat_critic, points), logits**2, rtol=1e-5)
    both = squares(points["real"]) + squares(points["fake"])
    np.testing.assert_allclose(run(p.output_l2(), flat_critic, points), both, rtol=1e-5)


def test_consistency_of_a_shift(points):
    """T adds 0.3 everywhere: a linear critic's logits move by 0.3 sum(W), on reals and on fakes."""
    move = (0.3 * float(W.sum())) ** 2
    augment = lambda keys, x: x + 0.3
    np.testing.assert_allclose(run(p.consistency(augment), flat_critic, points), 2 * move, rtol=1e-4)
    np.testing.assert_allclose(run(p.consistency(augment, fake=0.0), flat_critic, points), move, rtol=1e-4)


def test_latent_consistency_of_a_linear_pair():
    """D(G(z)) = w.(A z): the mean square gap is std^2 |A^T w|^2; the generator's side -std^2 |A|^2 / size."""
    n, std = 20000, 0.1
    a = jnp.array([[1.0, 2.0, 0.0], [0.5, -1.0, 1.0]])
    make, w = (lambda z: z @ a), jnp.array([1.0, -0.5, 2.0])
    z = jnp.zeros((n, 2))
    critic = lambda x, cond=None: Critique(x @ w)
    value = run(lambda k, d, z: p.latent_consistency(std)(k, d, {"fake": make(z), "z": z, "generate": make}), critic, z)
    assert float(jnp.mean(value)) == pytest.approx(std**2 * float(jnp.sum((a @ w) ** 2)), rel=0.05)
    value = run(p.latent_diversity(std), make, z)
    assert float(jnp.mean(value)) == pytest.approx(-(std**2) * float(jnp.sum(a**2)) / 3, rel=0.05)


def test_reconstruction_means_over_its_pairs(points):
    real = points["real"]
    made = {"reconstructions": {"a": real, "b": 0 * real}, "targets": {"b": real, "a": real + 2}}
    critic = lambda x, cond=None: Critique(jnp.zeros(len(x)), None, made)
    expected = 2.0 + np.abs(points["real"]).mean((1, 2))
    np.testing.assert_allclose(run(p.reconstruction(), critic, points), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="reconstruction: expected a discriminator with decoders"):
        run(p.reconstruction(), bowl, points)


def test_lecam_by_hand(points):
    """Two updates: the averages, corrected for their start, are those of the updates so far."""
    real, fake = (np.asarray(flat_critic(points[k]).logits) for k in ("real", "fake"))
    memory = p.lecam(decay=0.75)
    fn = jax.jit(lambda x, state: memory.fn(KEY, flat_critic, x, state))
    value, state = fn(points, memory.init({}))
    np.testing.assert_allclose(value, (real - fake.mean()) ** 2 + (fake - real.mean()) ** 2, rtol=1e-4)
    other = {"real": points["fake"], "fake": points["real"]}
    value, state = fn(other, state)
    a_real, a_fake = ((0.75 * u.mean() + v.mean()) / 1.75 for u, v in ((real, fake), (fake, real)))
    np.testing.assert_allclose(value, (fake - a_fake) ** 2 + (real - a_real) ** 2, rtol=1e-4)


class Player:
    """A player that is nothing but parameters."""

    def __init__(self, params):
        self.params = params


def test_historical_average():
    """0 at the first update; then |theta - mean|^2, whose gradient treats the mean as a constant."""
    memory = p.historical_averaging()
    first, second = {"w": jnp.array([1.0, 3.0])}, {"w": jnp.array([2.0, -1.0])}
    value, state = memory.fn(KEY, Player(first), None, memory.init(first))
    assert float(value) == 0
    total = lambda w: memory.fn(KEY, Player({"w": w}), None, state)[0]
    gap = np.array([2.0, -1.0]) - np.array([1.5, 1.0])
    assert float(total(second["w"])) == pytest.approx(np.sum(gap**2))
    np.testing.assert_allclose(jax.grad(total)(second["w"]), 2 * gap, rtol=1e-6)


def test_weights():
    kernel = jnp.array([[[1.0, 2.0]], [[0.0, 1.0]], [[2.0, -1.0]]])  # [3, 1, 2]: columns (1, 0, 2) and (2, 1, -1)
    player = Player({"layer": {"kernel": kernel, "bias": jnp.array([9.0, 9.0])}})
    assert float(run(p.orthogonal(), player, None)) == 0.0  # the columns are orthogonal
    assert float(run(p.orthogonal(off_diagonal=False), player, None)) == pytest.approx(4.0**2 + 5.0**2)
    skew = Player({"kernel": jnp.array([[1.0, 1.0], [0.0, 2.0]])})
    assert float(run(p.orthogonal(), skew, None)) == pytest.approx(2.0)
    assert float(run(p.l2(), player, None)) == pytest.approx(11.0)
    clipped = p.clip_weights(0.5)(player.params)
    np.testing.assert_allclose(clipped["layer"]["bias"], 0.5)
    assert float(jnp.abs(clipped["layer"]["kernel"]).max()) == 0.5


def test_path_length_of_a_linear_generator():
    """|J^T y| for G(z) = z A as images [2, 1, 1]: its mean square is |A|^2 / (H W), its average a moving one."""
    a = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    make = lambda z: (z @ a).reshape(-1, 2, 1, 1)
    memory = p.path_length(decay=0.25)
    z = jnp.zeros((20000, 2))
    value, state = jax.jit(lambda z: memory.fn(KEY, make, z, memory.init({})))(z)
    length = float(state) / 0.25  # the batch's mean, since the average began at 0
    # var of the length around a quarter of its mean, from the mean square |A|^2 / 2
    expected = 25 / 2 - length**2 + (0.75 * length) ** 2
    assert float(jnp.mean(value)) == pytest.approx(expected, rel=0.03)

    class Styled:
        styles = staticmethod(lambda z: jnp.stack([z, z], axis=1))  # two layers
        synthesize = staticmethod(lambda ws: make(ws[:, 0]))  # that read the first alone

    half = p.path_length("style", decay=0.25)
    _, found = half.fn(KEY, Styled(), z[:4], half.init({}))
    _, plain = memory.fn(KEY, make, z[:4], memory.init({}))
    assert float(found) == pytest.approx(float(plain) / np.sqrt(2), rel=1e-5)  # mean over layers of |.|^2


def test_split_batch_is_the_whole_one(points):
    """Statistics of the batch are taken over all parts: DRAGAN's spread, MaxGP's maximum, LeCam's averages."""
    twice = {k: jnp.concatenate([v, v[:1]]) for k, v in points.items()}
    keys = jax.random.split(KEY, 6)
    cut = lambda t: jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), t)
    for name in ("dragan", "max_gp"):
        fn = lambda keys, x, axis=None, name=name: p.PENALTIES[name](axis_name=axis)(keys, bowl, x)
        split = jax.vmap(lambda keys, x, fn=fn: fn(keys, x, "part"), axis_name="part")
        parted, whole = jax.jit(lambda keys, x: (split(cut(keys), cut(x)), fn(keys, x)))(keys, twice)  # noqa: B023
        np.testing.assert_allclose(parted.reshape(-1), np.broadcast_to(whole, 6 if name == "dragan" else 2), rtol=1e-5)
    memory, parted = p.lecam(), p.lecam(axis_name="part")
    state = memory.init({})
    split = jax.vmap(lambda keys, x: parted.fn(keys, bowl, x, state)[0], axis_name="part")
    found, whole = jax.jit(lambda keys, x: (split(cut(keys), cut(x)), memory.fn(keys, bowl, x, state)[0]))(keys, twice)
    np.testing.assert_allclose(found.reshape(-1), whole, rtol=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: p.lecam(1.0), r"decay: expected a number in \[0, 1\)"),
        (lambda: p.path_length("w"), "of: expected 'latent' or 'style', got 'w'"),
        (lambda: p.path_length(decay=0.0), "decay: expected a share"),
        (lambda: p.reconstruction("l3"), "norm: expected 'l1' or 'l2'"),
        (lambda: p.clip_weights(0.0), "c: expected a number > 0"),
        (lambda: p.witness("rqq"), "kernel: expected one of"),
    ],
)
def test_bad_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
