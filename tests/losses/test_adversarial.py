"""Adversarial losses: divergences between Gaussians at the optimal critic, known gradients, batch terms by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.types import Critique
from genjax.losses import adversarial as a
from genjax.losses import mmd as kernels
from genjax.losses.adversarial_classes import conditional_contrastive, data_to_data, with_generated
from genjax.losses.adversarial_logits import F_DIVERGENCES
from genjax.metrics import energy_distance
from genjax.networks import linen_net
from genjax.networks.gan import make_head

SHIFT = 0.8
GRID = np.linspace(-9, 9, 4001)


def density(x, mean):
    return np.exp(-0.5 * (x - mean) ** 2) / np.sqrt(2 * np.pi)


def expected(values, mean):
    """E of a function on the grid under N(mean, 1)."""
    return float(np.sum(np.asarray(values) * density(GRID, mean)) * (GRID[1] - GRID[0]))


def divergence(loss, critic, mean=SHIFT):
    """-E L_D of a critic on p = N(0, 1), q = N(mean, 1), by quadrature."""
    v = Critique(jnp.asarray(critic))
    zero = Critique(jnp.zeros_like(v.logits))
    # the losses are sums over (real, fake); a constant critic takes the other half away
    base = loss.d(zero, zero)[0]
    real = loss.d(v, zero)[0] - base / 2
    fake = loss.d(zero, v)[0] - base / 2
    return -(expected(real, 0.0) + expected(fake, mean))


LOG_RATIO = 0.5 * SHIFT**2 - SHIFT * GRID  # log p / q
MIX = (density(GRID, 0.0) + density(GRID, SHIFT)) / 2
STEP = GRID[1] - GRID[0]
JS = 0.5 * sum(np.sum(density(GRID, m) * np.log(density(GRID, m) / MIX)) * STEP for m in (0.0, SHIFT))
EXACT = {
    "kl": SHIFT**2 / 2,
    "reverse_kl": SHIFT**2 / 2,
    "pearson": np.expm1(SHIFT**2),
    "squared_hellinger": 2 * (1 - np.exp(-(SHIFT**2) / 8)),
    "js": 2 * JS,
}
SLOPE = {  # derivative with respect to the mean of q
    "kl": SHIFT,
    "reverse_kl": SHIFT,
    "pearson": 2 * SHIFT * np.exp(SHIFT**2),
    "squared_hellinger": SHIFT / 2 * np.exp(-(SHIFT**2) / 8),
}


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_f_divergence_at_its_optimal_critic(x64, name):
    """Would catch a wrong conjugate, activation or sign: the supremum is the divergence, other critics give less."""
    best = F_DIVERGENCES[name].optimum(jnp.asarray(LOG_RATIO))
    loss = a.f_gan(name)
    assert divergence(loss, best) == pytest.approx(EXACT[name], rel=1e-6)
    for other in (best + 0.3, 0.8 * best, best + 0.2 * np.sin(GRID)):
        assert divergence(loss, other) < EXACT[name] - 1e-4


@pytest.mark.parametrize("name", SLOPE)
def test_f_generator_descends_the_divergence(x64, name):
    """Envelope theorem: with the critic held at its optimum, dE[L_G]/dmean is the derivative of the divergence."""
    f = F_DIVERGENCES[name]
    loss = a.f_gan(name)

    def generator(shift):
        v = f.optimum(0.5 * SHIFT**2 - SHIFT * (jnp.asarray(GRID) + shift))
        return loss.g(Critique(v))[0] @ (density(GRID, SHIFT) * STEP)

    assert float(jax.grad(generator)(0.0)) == pytest.approx(SLOPE[name], rel=1e-6)


def test_minimax_is_twice_js_less_log_four(x64):
    assert divergence(a.minimax(), LOG_RATIO) == pytest.approx(2 * JS - np.log(4), rel=1e-7)
    v = jnp.linspace(-3, 3, 7)
    np.testing.assert_allclose(a.minimax().g(Critique(v))[0], jnp.log1p(-jax.nn.sigmoid(v)), rtol=1e-10)
    np.testing.assert_allclose(a.non_saturating().g(Critique(v))[0], -jnp.log(jax.nn.sigmoid(v)), rtol=1e-10)


def test_wasserstein_of_shifted_gaussians(x64):
    """The 1-Lipschitz critic -x gives the distance of the means, |shift|; half the slope half of it."""
    assert divergence(a.wasserstein(), -GRID) == pytest.approx(SHIFT, rel=1e-9)
    assert divergence(a.wasserstein(), -0.5 * GRID) == pytest.approx(SHIFT / 2, rel=1e-9)


def test_least_squares_is_pearson_of_the_mixture(x64):
    """(-1, 1, 0): 2 C(G) = Pearson chi^2 between p + q and 2 q (1611.04076, equation 7)."""
    p, q = density(GRID, 0.0), density(GRID, SHIFT)
    best = (p - q) / (p + q)
    chi = np.sum((2 * q - (p + q)) ** 2 / (p + q)) * STEP
    loss = a.least_squares(-1.0, 1.0, 0.0)
    both = 2 * (expected(loss.g(Critique(best))[0], 0.0) + expected(loss.g(Critique(best))[0], SHIFT))
    assert both == pytest.approx(chi, rel=1e-9)
    worse = divergence(loss, best + 0.1)
    assert divergence(loss, best) > worse


@pytest.mark.parametrize("name", ["non_saturating", "minimax"])
def test_one_sided_smoothing_optimum(x64, name):
    """The critic's gradient vanishes where sigmoid(D) = alpha p / (p + q), and is not smoothed for fakes."""
    alpha, p, q = 0.9, np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    loss = a.ADVERSARIAL[name](real_target=alpha)

    def total(d):
        zero = Critique(jnp.zeros(3))
        real, fake = loss.d(Critique(d), zero)[0], loss.d(zero, Critique(d))[0]
        return jnp.sum(p * real + q * fake)

    share = alpha * p / (p + q)
    gradient = jax.grad(total)(jnp.log(share / (1 - share)))
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


def test_hinge_by_hand():
    real, fake = Critique(jnp.array([0.5, 2.0])), Critique(jnp.array([-3.0, 0.5]))
    np.testing.assert_allclose(a.hinge().d(real, fake)[0], [0.5, 1.5])
    np.testing.assert_allclose(a.hinge().g(fake)[0], [3.0, -0.5])
    patches = Critique(jnp.array([[[0.0, 3.0]]]))  # the mean comes after the nonlinearity
    np.testing.assert_allclose(a.hinge().d(patches, Critique(jnp.array([-2.0])))[0], [0.5])


def test_random_margins_lie_in_their_range():
    n = 400
    keys = jax.random.split(jax.random.key(0), n)
    zero = Critique(jnp.zeros(n), None, {"margin_keys": keys})
    loss = a.random_margin_hinge(0.8, 1.0)
    real = loss.d(zero, Critique(jnp.full(n, -9.0), None, {"margin_keys": keys}))[0]
    assert 0.8 <= real.min() < 0.82 and 0.98 < real.max() <= 1.0 and real.mean() == pytest.approx(0.9, abs=0.01)
    both = loss.d(zero, zero)[0]
    assert np.std(both - 2 * real) > 0.02  # reals and fakes have margins of their own


def test_relativistic_pairing_and_average():
    r, f = jnp.array([0.3, -1.0, 2.0]), jnp.array([1.0, 0.5, -0.7])
    loss = a.relativistic_pairing()
    np.testing.assert_allclose(loss.d(Critique(r), Critique(f))[0], np.log1p(np.exp(f - r)), rtol=1e-6)
    np.testing.assert_allclose(loss.g(Critique(f), Critique(r))[0], np.log1p(np.exp(r - f)), rtol=1e-6)
    average = a.relativistic_average()
    by_hand = np.log1p(np.exp(-(r - f.mean()))) + np.log1p(np.exp(f - r.mean()))
    np.testing.assert_allclose(average.d(Critique(r), Critique(f))[0], by_hand, rtol=1e-6)
    np.testing.assert_allclose(average.g(Critique(r), Critique(f))[0], by_hand, rtol=1e-6)  # players exchanged
    assert loss.real_in_g and average.real_in_g


CLASSES = jnp.array([[1.0, -0.5, 0.3], [0.2, 0.9, -2.0], [0.0, 0.1, 0.4], [-1.0, -1.0, -1.5]])
LABELS = jnp.array([0, 1, 2, -1])


def classy(logits, label=LABELS):
    return Critique(jax.nn.logsumexp(logits, axis=-1), None, {"class_logits": logits, "label": label})


def test_class_aware_gradients(x64):
    """LabelGAN's -dL/dl_k = (1 - D_r) D_k / D_r, AM-GAN's 1[k = y*] - D_k (1703.02000, section 3)."""
    logits = jnp.asarray(CLASSES, jnp.float64)
    p = jax.nn.softmax(with_generated(classy(logits)), axis=-1)
    p_real = p[:, :-1].sum(1, keepdims=True)
    minus = lambda loss: -jax.jit(jax.grad(lambda v: jnp.sum(loss.g(classy(v))[0])))(logits)
    np.testing.assert_allclose(minus(a.label_gan()), (1 - p_real) * p[:, :-1] / p_real, rtol=1e-6)
    target = jax.nn.one_hot(jnp.argmax(logits, -1), 3)
    np.testing.assert_allclose(minus(a.am_gan()), target - p[:, :-1], rtol=1e-6)


def test_am_gan_decomposes(x64):
    """H(v, D) = v_r H(R(v), R(D)) + H([v_r, v_f], [D_r, D_f]) with v the target: real/fake plus class term."""
    logits = jnp.asarray(CLASSES, jnp.float64)
    value = a.am_gan("predefined").g(classy(logits, jnp.array([2, 1, 0, 1])))[0]
    p = jax.nn.softmax(with_generated(classy(logits)), axis=-1)
    p_real = p[:, :-1].sum(1)
    label = np.array([2, 1, 0, 1])
    by_hand = -np.log(p[np.arange(4), label] / p_real) - np.log(p_real)
    np.testing.assert_allclose(value, by_hand, rtol=1e-6)
    own = Critique(classy(logits).logits, None, {"class_logits": jnp.pad(logits, ((0, 0), (0, 1))), "label": LABELS})
    np.testing.assert_allclose(
        a.label_gan(num_classes=3).d(own, own)[0], a.label_gan().d(classy(logits), classy(logits))[0]
    )


def test_balanced_targets_reach_rare_classes():
    """Five samples near class 0; the one least so is pushed to the other class, which plain targets never do."""
    logits = jnp.array([[3.0, 2.9]] + [[3.0, 0.0]] * 4)

    def pull(loss):
        return jax.jit(jax.grad(lambda v: jnp.sum(loss.g(classy(v, jnp.zeros(5, int)))[0])))(logits)

    assert np.all(pull(a.am_gan("dynamic"))[:, 1] > 0)
    balanced = pull(a.am_gan("balanced", balance=1.0))
    assert balanced[0, 1] < 0 and np.all(balanced[1:, 1] > 0)


def test_semi_supervised_by_hand():
    real, fake = classy(CLASSES), classy(CLASSES[::-1])
    value, aux = a.semi_supervised().d(real, fake)
    lse = np.log(np.exp(CLASSES).sum(1))
    log_p = np.log(jax.nn.softmax(CLASSES))
    labelled = -np.mean([log_p[i, LABELS[i]] for i in range(3)])  # the fourth has no label
    unlabelled = np.mean(np.log1p(np.exp(-lse))) + np.mean(np.log1p(np.exp(lse)))
    assert float(jnp.mean(value)) == pytest.approx(labelled + unlabelled, rel=1e-5)
    assert float(aux["class_loss"]) == pytest.approx(labelled, rel=1e-5)
    # the fourth alone is unlabelled: its part of the reals counts, the labelled ones' does not
    value, _ = a.semi_supervised(weight=0.5, reals="unlabelled").d(real, fake)
    unlabelled = np.log1p(np.exp(-lse[3])) + np.mean(np.log1p(np.exp(lse)))
    assert float(jnp.mean(value)) == pytest.approx(labelled + 0.5 * unlabelled, rel=1e-5)
    with pytest.raises(ValueError, match="reals: expected 'all' or 'unlabelled', got 'some'"):
        a.semi_supervised(reals="some")


def test_auxiliary_adds_cross_entropy():
    real, fake = classy(CLASSES), classy(CLASSES[::-1], LABELS[::-1])
    base = a.hinge()
    extra = a.auxiliary(base, weight=0.5).d(real, fake)[0] - base.d(real, fake)[0]
    log_p = np.log(jax.nn.softmax(CLASSES))
    own = np.array([-log_p[i, LABELS[i]] if LABELS[i] >= 0 else 0.0 for i in range(4)])
    np.testing.assert_allclose(extra, 0.5 * (own + own[::-1]), rtol=1e-5)
    assert set(a.auxiliary(base).needs) == {"label", "fake_label", "class_logits"}


def contrast():
    rng = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    f, w = unit(rng.normal(size=(6, 4))), unit(rng.normal(size=(3, 4)))
    label = np.array([0, 1, 0, 2, 1, 0])
    return f, w[label], label


def test_contrastive_losses_by_loops():
    f, w, label = contrast()
    critique = Critique(jnp.zeros(6), None, {"embedding": 3 * jnp.asarray(f), "proxy": jnp.asarray(w), "label": label})
    t = 0.7
    two_c, d2d = [], []
    for i in range(6):
        own = np.exp(f[i] @ w[i] / t)
        others = [j for j in range(6) if j != i]
        same = sum(np.exp(f[i] @ f[j] / t) for j in others if label[j] == label[i])
        every = sum(np.exp(f[i] @ f[j] / t) for j in others)
        two_c.append(-np.log((own + same) / (own + every)))
        near = np.exp(min(f[i] @ w[i] - 0.9, 0) / t)
        far = sum(np.exp(max(f[i] @ f[j] - 0.1, 0) / t) for j in others if label[j] != label[i])
        d2d.append(-np.log(near / (near + far)))
    np.testing.assert_allclose(conditional_contrastive(t)(critique), two_c, rtol=1e-5)
    np.testing.assert_allclose(data_to_data(t, 0.9, 0.1)(critique), d2d, rtol=1e-5)


def sets(n=7, dim=3):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(n, dim))), jnp.asarray(0.5 + rng.normal(size=(n, dim)))


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_unbiased_mmd_leaves_the_diagonal_out(x64, name):
    x, y = sets()
    k = kernels.KERNELS[name]()
    at = lambda u, v: float(k(u[None], v[None])[0, 0])
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    by_hand = np.mean([at(x[i], x[j]) + at(y[i], y[j]) for i, j in pairs])
    by_hand -= 2 * np.mean([at(x[i], y[j]) for i in range(n) for j in range(n)])
    assert float(kernels.mmd2_unbiased(k, x, y)) == pytest.approx(by_hand, rel=1e-9)
    assert np.isfinite(jax.grad(lambda x: kernels.mmd2_unbiased(k, x, x))(x)).all()  # equal rows: no NaN


def test_kernel_formulas(x64):
    x, y = jnp.array([[1.0, 2.0]]), jnp.array([[0.0, 0.5]])
    square = 1 + 2.25
    assert float(kernels.rq((0.5, 2.0))(x, y)[0, 0]) == pytest.approx((1 + square) ** -0.5 + (1 + square / 4) ** -2.0)
    assert float(kernels.rq_star((1.0,))(x, y)[0, 0]) == pytest.approx(1 / (1 + square / 2) + 1.0)
    assert float(kernels.rbf((3.0,))(x, y)[0, 0]) == pytest.approx(np.exp(-square / 18))


def test_cramer_is_the_energy_distance_and_mmd_a_zero_sum_game(x64):
    x, y = sets()
    real, fake = Critique(jnp.zeros(7), x), Critique(jnp.zeros(7), y)
    n = len(x)
    # the metric is the V-statistic; its within-set means take the diagonal's zeros in
    within = lambda s: np.mean([np.linalg.norm(u - v) for u in s for v in s])
    found, aux = a.cramer().d(real, fake)
    correction = (within(x) + within(y)) * (n / (n - 1) - 1)
    by_hand = 2 * np.mean([np.linalg.norm(u - v) for u in x for v in y]) - within(x) - within(y) - correction
    assert float(-found) == pytest.approx(by_hand, rel=1e-9)
    assert energy_distance(x, y) > 0
    for loss in (a.mmd(), a.mmd("rbf")):
        assert float(loss.d(real, fake)[0]) == -float(loss.g(fake, real)[0])
    repulsive = a.repulsive_mmd("rbf")
    k = kernels.rbf()
    gap = kernels.off_diagonal_mean(k(x, x)) - kernels.off_diagonal_mean(k(y, y))
    assert float(repulsive.d(real, fake)[0]) == pytest.approx(float(gap), rel=1e-9)
    assert float(repulsive.g(fake, real)[0]) == float(aux["mmd2"] * 0 + kernels.mmd2_unbiased(k, x, y))


def test_mmd_gradient_is_unbiased(x64):
    """x ~ N(0, 1), y = theta z, a Gaussian kernel of bandwidth 1: d MMD^2 / d theta in closed form (1801.01401)."""
    theta, n, m = 0.7, 2000, 32
    g = lambda v: 1 / jnp.sqrt(1 + v)
    exact = jax.grad(lambda t: g(2.0) + g(2 * t * t) - 2 * g(1 + t * t))(theta)
    loss = a.mmd(kernels.rbf((1.0,)))

    def value(theta, key):
        x, z = jax.random.normal(key, (2, m, 1))
        return loss.g(Critique(jnp.zeros(m), theta * z), Critique(jnp.zeros(m), x))[0]

    found = jax.jit(jax.vmap(jax.grad(value), (None, 0)))(theta, jax.random.split(jax.random.key(0), n))
    found = np.asarray(found, np.float64)
    assert abs(found.mean() - exact) < 3.5 * found.std() / np.sqrt(n)


def test_feature_matching():
    x, y = sets()
    real, fake = Critique(jnp.zeros(7), x), Critique(jnp.zeros(7), y)
    gap = np.asarray(y).mean(0) - np.asarray(x).mean(0)
    assert float(a.feature_matching(a.hinge()).g(fake, real)[0]) == pytest.approx(np.sum(gap**2), rel=1e-5)
    assert float(a.feature_matching(a.hinge(), "l1").g(fake, real)[0]) == pytest.approx(np.abs(gap).mean(), rel=1e-5)
    moved = jax.grad(lambda x: a.feature_matching(a.hinge()).g(fake, Critique(jnp.zeros(7), x))[0])(x)
    assert not moved.any()  # the target is a constant


def test_san_trains_the_direction_by_the_mean_difference_alone():
    """The base loss moves features and scale, not the direction; the rest moves the direction, not the features."""
    net = linen_net(make_head("san"))
    x, y = (np.float32(s) for s in sets())
    params, state = net.init(jax.random.key(0), x)

    def value(params, x, y, loss):
        look = lambda f: net.apply(params, state, f)[0]
        return jnp.mean(loss.d(look(x), look(y))[0])

    grads = jax.grad(value, argnums=(0, 1, 2))
    whole, base = grads(params, x, y, a.san(a.hinge())), grads(params, x, y, a.san(a.hinge(), weight=0.0))
    norm = jnp.linalg.norm
    assert norm(base[0]["direction"]) < 1e-6 < 0.1 * norm(whole[0]["direction"])
    np.testing.assert_allclose(whole[1], base[1], atol=1e-7)
    # the direction's gradient is that of -<mean gap, omega> on the sphere
    omega = params["direction"][0] / norm(params["direction"][0])
    gap = y.mean(0) - x.mean(0)
    tangent = (gap - (gap @ omega) * omega) / norm(params["direction"][0]) * params["scale"]
    np.testing.assert_allclose(whole[0]["direction"][0], tangent, rtol=1e-4, atol=1e-6)
    assert a.san(a.hinge()).logit(net.apply(params, state, x)[0]).shape == (7,)


def test_top_k_keeps_the_best_of_the_batch():
    f = Critique(jnp.array([0.1, 3.0, -2.0, 1.0]))
    value = a.top_k(a.wasserstein(), share=0.5).g(f)[0]
    np.testing.assert_allclose(value, [0, -6.0, 0, -2.0])  # scaled so that the mean is that of the two kept
    late = a.top_k(a.wasserstein(), share=0.5, decay=0.1)
    at = lambda step: late.g(f._replace(extra={"step": step}))[0]
    assert np.count_nonzero(at(0)) == 4 and np.count_nonzero(at(100)) == 2
    ties = Critique(jnp.ones(4))
    assert np.count_nonzero(a.top_k(a.wasserstein(), share=0.5).g(ties)[0]) == 2


def full(n=6):
    """A Critique with all that any loss reads."""
    rng = np.random.default_rng(2)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    extra = {
        "class_logits": draw(n, 3),
        "embedding": draw(n, 4),
        "proxy": draw(n, 4),
        "fun": draw(n),
        "dir": draw(n),
        "label": jnp.arange(n) % 3,
        "margin_keys": jax.random.split(jax.random.key(3), n),
    }
    return Critique(draw(n), draw(n, 5), extra)


def built(name, **options):
    base = {"base": a.hinge()} if name in WRAPPERS else {}
    return a.ADVERSARIAL[name](**base, **options)


WRAPPERS = ("auxiliary", "contra_gan", "re_acgan", "feature_matching", "san", "top_k")
COUPLED = ("relativistic_average", "mmd", "repulsive_mmd", "cramer", "am_gan", "contra_gan", "re_acgan",
           "feature_matching", "top_k")  # fmt: skip


@pytest.mark.parametrize("name", a.ADVERSARIAL)
def test_split_batch_is_the_whole_one(name):
    """Values and gradients over two parts of an axis equal those of the whole batch: coupled terms gather."""
    options = {"labels": "balanced"} if name == "am_gan" else {}
    whole = built(name, **options)
    split = built(name, **options, axis_name="part") if name in COUPLED else whole
    real, fake = full(), jax.tree.map(lambda x: x[::-1], full())
    floats = lambda c: (c.logits, c.features, {k: c.extra[k] for k in ("class_logits", "embedding", "fun", "dir")})

    def total(loss, leaves, r, f):
        join = lambda c, given: Critique(given[0], given[1], {**c.extra, **given[2]})
        r, f = join(r, leaves[0]), join(f, leaves[1])
        return jnp.mean(loss.d(r, f)[0]) + 2 * jnp.mean(loss.g(f, r)[0])

    def parted(leaves, r, f):
        value, grads = jax.value_and_grad(lambda leaves: total(split, leaves, r, f))(leaves)
        return jax.lax.pmean(value, "part"), jax.tree.map(lambda g: g / 2, grads)  # the mean over two parts

    leaves = (floats(real), floats(fake))
    value, grads = jax.value_and_grad(lambda leaves: total(whole, leaves, real, fake))(leaves)
    assert np.isfinite(value)
    cut = lambda tree: jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), tree)
    values, parts = jax.jit(jax.vmap(parted, axis_name="part"))(cut(leaves), cut(real), cut(fake))
    np.testing.assert_allclose(values, value, rtol=2e-5, atol=1e-6)
    for one, many in zip(jax.tree.leaves(grads), jax.tree.leaves(parts)):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(many.reshape(one.shape), one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: a.f_gan("k"), "divergence: expected one of"),
        (lambda: a.non_saturating(1.2), "real_target: expected a number in"),
        (lambda: a.am_gan("plain"), "labels: expected 'dynamic', 'balanced' or 'predefined', got 'plain'"),
        (lambda: a.mmd("rqq"), "kernel: expected one of"),
        (lambda: a.mmd(of="x"), "of: expected 'features' or 'logits', got 'x'"),
        (lambda: a.top_k(a.hinge(), 0.0), "share: expected a share in"),
        (lambda: a.feature_matching(a.hinge(), "l3"), "norm: expected 'l2' or 'l1', got 'l3'"),
        (lambda: kernels.rbf((0.0,)), "sigmas: expected numbers > 0"),
        (lambda: a.random_margin_hinge(1.0, 0.5), "low: expected 0 < low <= high"),
    ],
)
def test_bad_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
