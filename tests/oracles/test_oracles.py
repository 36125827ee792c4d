"""The oracles against automatic differentiation, sampling, quadrature and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import oracles, processes

PROCESSES = {"vp": processes.vp, "ve": processes.ve, "flow": processes.flow, "sub_vp": processes.sub_vp}


def full_covariance(dim=3, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(dim, dim))
    return oracles.gaussian_data(jnp.asarray(rng.normal(size=dim)), jnp.asarray(a @ a.T / dim))


def build(name):
    rng = np.random.default_rng(1)
    if name == "mixture":
        return oracles.random_mixture(jax.random.key(1), 5, (3,))
    if name == "gaussian":
        return full_covariance()
    if name == "full_mixture":
        return oracles.FullMixture.of([full_covariance(seed=s) for s in range(3)], jnp.asarray([0.5, 0.2, 0.3]))
    return oracles.kernel(jnp.asarray(rng.normal(size=(11, 3))), 0.2, chunk=4)


ORACLES = ["mixture", "gaussian", "full_mixture", "kernel"]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("process_name", ["vp", "flow"])
def test_denoiser_is_tweedie_of_the_density(name, process_name, x64):
    # x0 = (x + sigma^2 grad log p) / alpha from autodiff: catches any error of mean, weights or scale
    oracle, process = build(name), PROCESSES[process_name]()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)))
    t = process.time(jnp.linspace(-3.0, 3.0, 6))
    a, s = process.alpha(t), process.sigma(t)

    @jax.jit
    def answers(oracle, x):
        score = jax.grad(lambda x: jnp.sum(oracle.log_prob(x, a, s)))(x)
        return score, oracle.denoiser(process)(x, t), oracle.score(x, a, s) if hasattr(oracle, "score") else score

    score, pred, own_score = answers(oracle, x)
    np.testing.assert_allclose(pred.x0, (x + s[:, None] ** 2 * score) / a[:, None], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(pred.eps, -s[:, None] * score, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(process.perturb(pred.x0, pred.eps, t), x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(own_score, score, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ORACLES)
def test_posterior_covariance_is_the_jacobian(name, x64):
    # Cov(x0 | x_t) = sigma^2 / alpha dE[x0 | x_t] / dx: catches a wrong trace, and shows that Jacobians come from JAX
    oracle, process, t = build(name), processes.vp(), 0.3
    x = jnp.asarray(np.random.default_rng(3).normal(size=(4, 3)))
    a, s = process.alpha(t), process.sigma(t)
    one = lambda x: oracle.denoiser(process)(x[None], t).x0[0]
    jacobian = jax.jit(jax.vmap(jax.jacfwd(one)))(x)
    np.testing.assert_allclose(oracle.moments(x, a, s)[1], s**2 / a * jnp.trace(jacobian, axis1=1, axis2=2), rtol=1e-8)
    tangent = jnp.ones_like(x)
    product = jax.jvp(lambda x: oracle.denoiser(process)(x, t).x0, (x,), (tangent,))[1]
    np.testing.assert_allclose(product, jnp.einsum("bij,bj->bi", jacobian, tangent), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ORACLES)
def test_density_is_that_of_the_samples(name):
    # E_p[exp(log q - log p)] = 1 for q a Gaussian inside p: the density is normalized and belongs to `sample`
    oracle = build(name)
    drawn = oracle.sample(jax.random.key(0), 40000)
    x = drawn[0] if isinstance(drawn, tuple) else drawn
    x = x + 0.5 * jax.random.normal(jax.random.key(1), x.shape)
    center, narrow = x.mean(0, keepdims=True), 0.4
    log_q = jnp.sum(-0.5 * ((x - center) / narrow) ** 2 - jnp.log(narrow) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
    ratio = jnp.exp(log_q - oracle.log_prob(x, 1.0, 0.5))
    error = float(ratio.std()) / len(x) ** 0.5
    assert error < 0.05
    assert abs(float(ratio.mean()) - 1) < 4 * error


@pytest.mark.parametrize("target", ["x0", "eps"])
def test_gaussian_bayes_error(target, x64):
    # closed form against Monte Carlo of the actual squared error, and the general estimator
    oracle, process = full_covariance(), processes.flow()
    x0 = oracle.sample(jax.random.key(0), 40000)
    t = jnp.asarray([0.2, 0.7])
    for time, exact in zip(t, oracle.bayes_error(process, t, target), strict=True):
        x, truth = process.corrupt(jax.random.key(1), x0, time)
        pred = oracle.denoiser(process)(x, time)
        error = jnp.sum((getattr(pred, target) - getattr(truth, target)) ** 2, axis=-1)
        assert abs(float(error.mean() - exact)) < 4 * float(error.std()) / 200
    assert oracle.bayes_error(process, 0.5).shape == ()
    mean, _ = oracles.bayes_error(jax.random.key(2), oracle, process, 0.2, 16)
    np.testing.assert_allclose(mean, oracle.bayes_error(process, 0.2), rtol=1e-9)  # its trace does not depend on x


def test_mixture_bayes_error(x64):
    # quadrature against Monte Carlo in 2-D, and exact for a single Gaussian
    process, t = processes.vp(), 0.25
    mixture = oracles.ring(5, 1.0, 0.2)
    mean, error = oracles.bayes_error(jax.random.key(0), mixture, process, t, 20000)
    exact = oracles.bayes_error_quadrature(mixture, process, t)
    assert abs(float(mean - exact)) < 4 * float(error)
    np.testing.assert_allclose(exact, oracles.bayes_error_quadrature(mixture, process, t, 64), rtol=1e-5)
    single = oracles.ring(1, 1.0, 0.3)
    a, s = process.alpha(t), process.sigma(t)
    expected = 2 * 0.09 * s**2 / (a**2 * 0.09 + s**2)
    np.testing.assert_allclose(oracles.bayes_error_quadrature(single, process, t), expected, rtol=1e-9)


@pytest.mark.parametrize("process_name", ["vp", "sub_vp", "edm"])
def test_flow_map_is_the_probability_flow(process_name, x64):
    # the exact map against a fine Runge-Kutta solve of the oracle's own velocity, down and up
    process = processes.edm() if process_name == "edm" else PROCESSES[process_name]()
    oracle = full_covariance()
    denoiser = oracle.denoiser(process)
    high, low = process.time(jnp.asarray(-2.0)), process.time(jnp.asarray(3.0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))

    @jax.jit
    def solve(x, start, end):
        n = 400
        h = (end - start) / n
        field = lambda x, t: process.velocity(x, denoiser(x, t), t)

        def body(x, i):
            t = start + i * h
            k1 = field(x, t)
            k2 = field(x + h / 2 * k1, t + h / 2)
            k3 = field(x + h / 2 * k2, t + h / 2)
            k4 = field(x + h * k3, t + h)
            return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return jax.lax.scan(body, x, jnp.arange(n))[0]

    np.testing.assert_allclose(solve(x, high, low), oracle.flow_map(process, x, high, low), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(solve(x, low, high), oracle.flow_map(process, x, low, high), rtol=1e-6, atol=1e-7)
    there = oracle.flow_map(process, x, high, 0.0)
    np.testing.assert_allclose(oracle.flow_map(process, there, 0.0, high), x, rtol=1e-9)


def test_measurement_posterior(x64):
    # Bayes on the density: log p(x | y) - log p(x) - log p(y | x) is the same for every x
    rng = np.random.default_rng(4)
    matrix, y, noise = jnp.asarray(rng.normal(size=(2, 3))), jnp.asarray(rng.normal(size=2)), 0.3
    x = jnp.asarray(rng.normal(size=(8, 3)))
    likelihood = -0.5 * jnp.sum((y[None] - x @ matrix.T) ** 2, axis=-1) / noise**2
    isotropic = oracles.FullMixture.from_mixture(build("mixture"))
    for oracle in (build("gaussian"), build("full_mixture"), isotropic):
        difference = lambda o: o.measurement_posterior(matrix, y, noise).log_prob(x) - o.log_prob(x)
        constant = jax.jit(difference)(oracle) - likelihood
        np.testing.assert_allclose(constant, constant[0], rtol=1e-8)


def test_the_same_law_in_two_forms(x64):
    # mixture, full-covariance mixture and kernel are one law where they meet
    mixture = build("mixture")
    full = oracles.FullMixture.from_mixture(mixture)
    points = jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)))
    kernel = oracles.kernel(points, 0.3, chunk=3)
    as_mixture = oracles.Mixture(points, jnp.full(7, 0.3), jnp.zeros(7))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    for one, other in ((mixture, full), (kernel, as_mixture)):
        answers = jax.jit(lambda oracle: (oracle.log_prob(x, 0.7, 0.5), *oracle.moments(x, 0.7, 0.5)))
        for a, b in zip(answers(one), answers(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_classes(x64):
    # p(class | x_t) by Bayes from the class-conditional densities; -1 and no condition mean all
    mixture = oracles.random_mixture(jax.random.key(0), 6, (2,), num_classes=3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    label = lambda c: {"label": jnp.full(4, c)}
    weights = jax.nn.softmax(mixture.log_weights)
    prior = jnp.asarray([weights[mixture.classes == c].sum() for c in range(3)])
    joint = jnp.stack([jnp.log(prior[c]) + mixture.log_prob(x, 0.8, 0.4, label(c)) for c in range(3)], axis=-1)
    np.testing.assert_allclose(mixture.log_class_prob(x, 0.8, 0.4, 3), jax.nn.log_softmax(joint), rtol=1e-9)
    np.testing.assert_allclose(jax.nn.logsumexp(joint, axis=-1), mixture.log_prob(x, 0.8, 0.4), rtol=1e-9)
    np.testing.assert_array_equal(mixture.log_prob(x, 0.8, 0.4, label(-1)), mixture.log_prob(x, 0.8, 0.4))
    denoiser = mixture.denoiser(processes.vp())
    mixed = jnp.array([0, -1, 2, 1])
    whole = denoiser(x, 0.4, {"label": mixed}).x0
    for i, c in enumerate(mixed):
        np.testing.assert_allclose(whole[i], denoiser(x, 0.4, label(c)).x0[i], rtol=1e-12)
    labels = mixture.sample(jax.random.key(1), 4000)[1]
    np.testing.assert_allclose(np.bincount(labels, minlength=3) / 4000, prior, atol=0.03)


def test_kernel_classes_and_padding(x64):
    # labels keep a class's points, whatever chunk they are in; the chunk size changes nothing
    rng = np.random.default_rng(0)
    points, labels = jnp.asarray(rng.normal(size=(10, 2))), jnp.asarray([0] * 6 + [1] * 4)
    x, t, process = jnp.asarray(rng.normal(size=(3, 2))), 0.2, processes.vp()
    cond = {"label": jnp.asarray([1, 1, -1])}
    denoise = jax.jit(lambda oracle, cond=None: oracle.denoiser(process)(x, t, cond).x0)
    part, whole = denoise(oracles.kernel(points[6:])), denoise(oracles.kernel(points))
    for chunk in (3, 10, 256):
        got = denoise(oracles.kernel(points, 0.0, labels, chunk), cond)
        np.testing.assert_allclose(got, jnp.concatenate([part[:2], whole[2:]]), rtol=1e-10)
    log_p = oracles.kernel(points, 0.1, labels, 4).log_prob(x, cond=cond)
    np.testing.assert_allclose(log_p[0], oracles.kernel(points[6:], 0.1).log_prob(x)[0], rtol=1e-10)


def test_kernel_memory_does_not_grow_with_the_data():
    # temporaries of the compiled denoiser are set by the chunk, not by N
    def temporaries(n):
        fn = lambda points, x: oracles.Kernel(points, 0.1, chunk=64).denoiser(processes.vp())(x, 0.5).x0
        shapes = (jax.ShapeDtypeStruct((n, 32), jnp.float32), jax.ShapeDtypeStruct((16, 32), jnp.float32))
        return jax.jit(fn).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    small, large = temporaries(1024), temporaries(8192)
    assert large - small < 3 * 4 * 32 * (8192 - 1024)  # copies of the data at most, never [B, N, D] (16 times that)


def test_images_and_stable_small_noise():
    # data of any shape; at sigma = 1e-6 the pair stays finite and exact
    mixture = oracles.random_mixture(jax.random.key(0), 4, (2, 2, 1), std=(0.0, 0.0))
    x = mixture.means[:2] + 1e-6
    pred = mixture.denoiser(processes.edm())(x, 1e-6)
    np.testing.assert_allclose(pred.x0, mixture.means[:2], atol=1e-7)
    np.testing.assert_allclose(pred.eps, jnp.ones_like(x), atol=0.2)
    assert mixture.sample(jax.random.key(1), 3)[0].shape == (3, 2, 2, 1)


def test_layouts():
    np.testing.assert_allclose(jnp.linalg.norm(oracles.ring(6, 2.0).means, axis=-1), 2.0, rtol=1e-6)
    square = oracles.grid(3, 0.5)
    assert square.means.shape == (9, 2)
    np.testing.assert_allclose(square.means.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(jnp.sort(jnp.unique(square.means)), [-0.5, 0.0, 0.5], atol=1e-7)


@pytest.mark.parametrize("build_process", [lambda: processes.masked(3, "cosine"), lambda: processes.uniform_tokens(3)])
def test_token_table_denoiser(build_process, x64):
    # p(x0^n | x_t) by explicit sums over sequences and emissions
    process = build_process()
    table = oracles.random_table(jax.random.key(0), 3, 2)
    probs = np.exp(np.asarray(table.log_probs)).reshape(3, 3)
    t = 0.4
    states = np.arange(process.states)
    x = jnp.asarray(np.stack(np.meshgrid(states, states, indexing="ij"), axis=-1).reshape(-1, 2))
    emission = np.exp(np.asarray(process.log_emission(jnp.asarray(states)[:, None], t)))[:, 0]  # [states, V]
    logits = jax.jit(lambda x: table.denoiser(process)(x, t).logits)(x)
    for row, got in zip(np.asarray(x), np.exp(np.asarray(logits)), strict=True):
        joint = probs * emission[row[0]][:, None] * emission[row[1]][None]
        joint = joint / joint.sum()
        np.testing.assert_allclose(got[0], joint.sum(1), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(got[1], joint.sum(0), rtol=1e-9, atol=1e-15)


def test_token_table(x64):
    probs = np.random.default_rng(0).dirichlet(np.ones(8)).reshape(2, 2, 2)
    table = oracles.token_table(probs)
    tokens = table.sample(jax.random.key(0), 20000)
    counts = np.bincount(np.asarray(table.index(tokens)), minlength=8) / 20000
    np.testing.assert_allclose(counts, probs.ravel(), atol=4 * 0.5 / 20000**0.5)
    np.testing.assert_allclose(table.log_prob(jnp.asarray([[1, 0, 1]])), np.log(probs[1, 0, 1]), rtol=1e-12)
    np.testing.assert_allclose(table.entropy(), -(probs * np.log(probs)).sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="probs: expected equal axes"):
        oracles.token_table(np.ones((2, 3)))
    with pytest.raises(ValueError, match="probs: expected numbers >= 0"):
        oracles.token_table(np.array([1.0, -1.0]))


def test_bad_input():
    with pytest.raises(ValueError, match="mixture: expected at most 3 dimensions for quadrature, got 4"):
        oracles.bayes_error_quadrature(oracles.random_mixture(jax.random.key(0), 2, (4,)), processes.vp(), 0.5)
    with pytest.raises(ValueError, match=r"target: expected one of .* got 'v'"):
        full_covariance().bayes_error(processes.vp(), 0.5, "v")
