"""Three uses that strain the contracts: a token chain, a bridge, and a game of two networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import oracles, processes
from genjax.core import Algorithm, Critique, Prediction, State
from genjax.core.keys import fold, normal_like
from genjax.solvers import ancestral, base


class TestMaskedChain:
    """The Gaussian solver `ddpm`, unchanged, on tokens."""

    vocab, length = 3, 2

    def setup_method(self):
        self.process = processes.masked(self.vocab)
        self.table = oracles.random_table(jax.random.key(3), self.vocab, self.length, 1.5)
        self.denoiser = self.table.denoiser(self.process)

    def chain_law(self, grid):
        """The exact law of the sampler's last state: the product of its transition matrices over all states."""
        axis = np.arange(self.vocab + 1)
        states = jnp.asarray(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2))

        def body(law, ts):
            t, s = ts
            logits = self.process.posterior(states, self.denoiser(states, t), t, s).logits
            p = jax.nn.softmax(logits, axis=-1)  # [states, 2, V + 1]
            joint = (p[:, 0, :, None] * p[:, 1, None, :]).reshape(len(states), -1)
            return law @ joint, None

        start = jnp.zeros(len(states)).at[-1].set(1.0)
        law, _ = jax.lax.scan(body, start, (grid[:-1], grid[1:]))
        return law.reshape(self.vocab + 1, self.vocab + 1)

    def test_law_converges_to_the_table(self):
        # no mass on masks, and an error of the law that falls as 1 / steps: all of it is the pairs unmasked at once
        truth = np.exp(np.asarray(self.table.log_probs)).reshape(3, 3)
        distance = []
        for steps in (4, 16, 64):
            law = np.asarray(jax.jit(self.chain_law)(jnp.linspace(1.0, 0.0, steps + 1)))
            np.testing.assert_allclose(law[:3, :3].sum(), 1, rtol=1e-5)
            distance.append(0.5 * np.abs(law[:3, :3] - truth).sum())
        assert distance[2] < 0.01
        np.testing.assert_allclose(np.log(np.array(distance[:-1]) / distance[1:]), np.log(4), rtol=0.1)

    def test_solver_draws_from_that_law(self):
        n, grid = 20000, jnp.linspace(1.0, 0.0, 17)
        like = jnp.zeros((n, self.length), jnp.int32)
        run = jax.jit(lambda key: base.generate(key, self.denoiser, self.process, ancestral.ddpm(), grid, like))
        x = np.asarray(run(jax.random.key(0)))
        counts = np.bincount(x[:, 0] * 4 + x[:, 1], minlength=16)
        law = np.asarray(self.chain_law(grid)).ravel()
        keep = law > 0
        assert counts[~keep].sum() == 0
        chi_square = np.sum((counts[keep] - n * law[keep]) ** 2 / (n * law[keep]))
        assert chi_square < 8 + 5 * 4  # eight degrees of freedom, standard deviation 4


class TestBrownianBridge:
    """The same solver on a process that is bound to an end."""

    mean0, std0, gamma = 1.0, 0.5, 0.8
    slope, shift, noise = 1.5, -2.0, 0.8  # x1 = slope x0 + shift + noise n

    def ends(self, key, n):
        x0 = self.mean0 + self.std0 * jax.random.normal(fold(key, 0), (n, 1))
        return x0, self.slope * x0 + self.shift + self.noise * jax.random.normal(fold(key, 1), (n, 1))

    def denoiser(self, process, drawn):
        """The exact law of x0 given (x_t, x1): its mean, or a draw from it."""

        def denoiser(x, t, cond=None, key=None):
            prior = 1 / self.std0**2 + self.slope**2 / self.noise**2
            pull = self.mean0 / self.std0**2 + self.slope * (process.x1 - self.shift) / self.noise**2
            # x_t - t x1 = (1 - t) x0 + gamma sqrt(t (1 - t)) eps
            precision = prior + (1 - t) / (self.gamma**2 * t)
            mean = (pull + (x - t * process.x1) / (self.gamma**2 * t)) / precision
            mean = jnp.where(t < 1, mean, pull / prior)
            draw = normal_like(key, x) / jnp.sqrt(precision) if drawn else 0
            return Prediction(x0=mean + draw, x1=process.x1)

        return denoiser

    @pytest.mark.parametrize(("drawn", "steps"), [(True, 3), (False, 400)])
    def test_maps_one_gaussian_to_the_other(self, drawn, steps):
        # the joint law of (x0, x1): exact in three steps where the denoiser draws, in the limit where it gives means
        n = 20000
        _, x1 = self.ends(jax.random.key(0), n)

        @jax.jit
        def run(x1):
            process = processes.brownian_bridge(self.gamma).bind(x1=x1)
            grid = jnp.linspace(1.0, 0.0, steps + 1)
            like = jnp.zeros_like(x1)
            return base.generate(
                jax.random.key(1), self.denoiser(process, drawn), process, ancestral.ddpm(), grid, like
            )

        got = jnp.cov(jnp.concatenate([run(x1), x1], axis=-1).T)
        want = self.std0**2 * np.array([[1, self.slope], [self.slope, self.slope**2]]) + np.diag([0, self.noise**2])
        np.testing.assert_allclose(got, want, atol=5 * 2 / n**0.5 * want.max() / 2)
        np.testing.assert_allclose(run(x1).mean(), self.mean0, atol=0.02)

    def test_means_alone_are_not_enough_in_few_steps(self):
        # guards the test above: with means and three steps the spread of x0 given x1 is visibly too small
        _, x1 = self.ends(jax.random.key(0), 4000)
        process = processes.brownian_bridge(self.gamma).bind(x1=x1)
        grid = jnp.linspace(1.0, 0.0, 4)
        x0 = base.generate(jax.random.key(1), self.denoiser(process, False), process, ancestral.ddpm(), grid, x1)
        assert float(x0.std()) < 0.97 * self.std0


def dirac_gan(rate=0.1, r1=0.0):
    """A generator that is one point, a linear critic, data at zero, minimax loss (1801.04406)."""
    optimizer = optax.sgd(rate)

    def generate(params, n):
        return jnp.broadcast_to(params["theta"][None], (n, 1))

    def critic(params, x):
        return Critique(logits=(x * params["psi"][None])[:, 0])

    def init(key, batch, priors=None):
        start = jax.random.uniform(key, (2,), minval=0.5, maxval=1.0)
        params = {"g": {"theta": start[:1]}, "d": {"psi": start[1:]}}
        opt = {name: optimizer.init(part) for name, part in params.items()}
        return State(step=jnp.zeros((), jnp.int32), params=params, opt=opt)

    def update(name, state, loss):
        value, grads = jax.value_and_grad(loss)(state.params[name])
        change, opt = optimizer.update(grads, state.opt[name])
        params = {**state.params, name: optax.apply_updates(state.params[name], change)}
        return state._replace(params=params, opt={**state.opt, name: opt}), value

    def step(key, state, batch):
        real = batch["x"]

        def d_loss(d):
            fake = generate(state.params["g"], len(real))
            slope = jax.grad(lambda x: jnp.sum(critic(d, x).logits))(real)
            penalty = 0.5 * r1 * jnp.mean(jnp.sum(slope**2, axis=-1))
            bce = jax.nn.softplus(-critic(d, real).logits) + jax.nn.softplus(critic(d, fake).logits)
            return jnp.mean(bce) + penalty

        state, d_value = update("d", state, d_loss)
        g_loss = lambda g: -jnp.mean(jax.nn.softplus(critic(state.params["d"], generate(g, len(real))).logits))
        state, g_value = update("g", state, g_loss)
        return state._replace(step=state.step + 1), {"d": d_value, "g": g_value}

    def sample(key, state, n, cond=None):
        return generate(state.params["g"], n)

    return Algorithm(init, step, sample)


class TestGame:
    batch = {"x": jnp.zeros((4, 1))}  # noqa: RUF012
    steps = 3000

    def path(self, r1):
        algorithm = dirac_gan(r1=r1)

        def train(key):
            state = algorithm.init(key, self.batch)

            def body(state, i):
                state, metrics = algorithm.step(fold(key, i), state, self.batch)
                point = jnp.concatenate([state.params["g"]["theta"], state.params["d"]["psi"]])
                return state, (point, metrics)

            return jax.lax.scan(body, state, jnp.arange(self.steps))

        seeds = jax.vmap(jax.random.key)(jnp.arange(3))
        return jax.jit(jax.vmap(train))(seeds)

    def test_cycles_without_a_penalty(self):
        # the known behaviour: round and round at the same distance from the equilibrium
        state, (points, metrics) = self.path(0.0)
        radius = jnp.linalg.norm(points, axis=-1)
        turns = jnp.abs(jnp.diff(jnp.unwrap(jnp.arctan2(points[..., 1], points[..., 0])))).sum(-1) / (2 * jnp.pi)
        assert bool(jnp.all(turns > 5))
        late = radius[:, -500:]
        assert bool(jnp.all(late.min(-1) > 0.7 * radius[:, 0])) and bool(jnp.all(late.max(-1) < 1.5 * radius[:, 0]))
        assert state.step.tolist() == [self.steps] * 3
        assert bool(jnp.all(jnp.isfinite(metrics["d"])))

    def test_converges_with_r1(self):
        state, (points, metrics) = self.path(1.0)
        assert float(jnp.linalg.norm(points[:, -1], axis=-1).max()) < 1e-3
        np.testing.assert_allclose(metrics["g"][:, -1], -np.log(2), rtol=1e-4)  # a critic that cannot tell
        one = jax.tree.map(lambda leaf: leaf[0], state)
        np.testing.assert_allclose(dirac_gan().sample(None, one, 5), 0, atol=1e-3)

    def test_one_step_alone_is_the_step_of_the_scan(self):
        # under jit alone and in the scan: the same state
        algorithm = dirac_gan(r1=1.0)
        key = jax.random.key(0)
        state, metrics = jax.jit(algorithm.step)(fold(key, 0), algorithm.init(key, self.batch), self.batch)
        _, (points, scanned) = self.path(1.0)
        np.testing.assert_allclose(state.params["g"]["theta"][0], points[0, 0, 0], rtol=1e-6)
        np.testing.assert_allclose(metrics["d"], scanned["d"][0, 0], rtol=1e-6)
