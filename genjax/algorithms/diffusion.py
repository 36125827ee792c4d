"""Training a denoiser: one network, one optimizer, any Gaussian process and any loss on a Denoiser.

net = linen_net(module)
denoise = functools.partial(make_denoiser, process=process, target="edm", sigma_data=0.5)
loss = denoising(process, times, edm(0.5), ...)
sampler = gaussian_sampler(process, heun(), karras(process, 18), shape)
algorithm = diffusion(net, denoise, loss, optimizer, ema, sampler=sampler, cond=("label",), drop=0.1)
"""

import jax
import jax.numpy as jnp
import optax

from genjax.algorithms import parts
from genjax.core.collectives import gather, pmean
from genjax.core.keys import fold
from genjax.core.numerics import batch_time
from genjax.core.types import Algorithm, State
from genjax.losses.times import SPREADS
from genjax.solvers.base import generate


def gaussian_sampler(process, solver, grid, shape, guidance=None):
    """`sampler(key, denoiser, n, cond=None) -> [n, *shape]`: a solver over a grid, from the prior.

    Args:
      grid: [N + 1] times.
      shape: of one sample.
      guidance: (Denoiser, Process) -> Denoiser, or None.
    """

    def sampler(key, denoiser, n, cond=None):
        guided = denoiser if guidance is None else guidance(denoiser, process)
        return generate(key, guided, process, solver, grid, jnp.zeros((n, *shape)), cond)

    return sampler


def trained_denoiser(net, denoise, state, ema=None, track=0):
    """The Denoiser of a State, for evaluation.

    Args:
      net, denoise: as given to `diffusion`.
      state: State.
      ema: the EMA given to `diffusion`, whose averaged weights are used; None for the raw weights.
      track: which average, where there are several.
    """
    params = state.params if ema is None else ema.read(state.ema, track)

    def fn(x, noise, cond, key):
        return net.apply(params["denoiser"], state.extra["net"]["denoiser"], x, noise, cond, train=False)[0]

    return denoise(fn)


def diffusion(
    net,
    denoise,
    loss,
    optimizer,
    ema=None,
    *,
    sampler=None,
    cond=(),
    drop=0.0,
    times=None,
    spread="lattice",
    uncertainty=None,
    post_update=None,
    axis_name=None,
):
    """The recipe of every paper that trains one denoiser by a mean over samples.

    Args:
      net: Net called as (x [B, ...], noise [B], cond).
      denoise: fn -> Denoiser, a `core.denoiser.make_denoiser` with everything else filled in.
      loss: Loss on models {"denoiser": ...} (`losses.denoising`, `losses.variational`).
      optimizer: Optax transform.
      ema: NamedTuple of init(params), update(state, params, step), read(state, track) (`train.ema`), or None.
      sampler: (key, denoiser, n, cond) -> [n, ...], e.g. `gaussian_sampler`.
      cond: names of the batch's fields that condition the network.
      drop: probability of a null condition, in [0, 1].
      times: the TimeSampler that `loss` was made with; gives it a state that learns and a spread over the
        whole batch. None: the loss draws by itself, independently.
      spread: a name in `losses.times.SPREADS`, how `times` is spread over the batch.
      uncertainty: Net called as (ln(sigma / alpha) / 4 [B]) -> [B] for `losses.with_uncertainty`.
      post_update: params -> params of the denoiser, after every update and at the start (EDM2's forced
        weight normalization).
      axis_name: axis over which the batch is split, under pmap, shard_map or vmap.

    Returns:
      Algorithm. State.params holds "denoiser" and, where given, "uncertainty"; State.opt one state of all
      of them, under "denoiser"; State.extra the networks' collections "net" and the sampler's state "times".
      `init(key, batch, priors)` starts from priors["denoiser"] where there is one. Metrics: loss,
      grad_norm, eps_mse, and what else of vlb and uncertainty the loss reports, all scalars.

    Raises:
      ValueError: drop outside [0, 1], an unknown spread, or dropping without a condition.
    """
    if not 0 <= drop <= 1:
        raise ValueError(f"drop: expected a probability in [0, 1], got {drop}")
    if drop and not cond:
        raise ValueError(f"cond: expected names of fields to drop with probability {drop}, got none")
    if spread not in SPREADS:
        raise ValueError(f"spread: expected one of {sorted(SPREADS)}, got {spread!r}")
    nets = {"denoiser": net} if uncertainty is None else {"denoiser": net, "uncertainty": uncertainty}
    normalize = (lambda params: params) if post_update is None else post_update

    def init(key, batch, priors=None):
        x, c = batch["x"][:1], parts.condition(batch, cond)
        noise = batch_time(0.0, x)
        inputs = {"denoiser": (x, noise, jax.tree.map(lambda a: a[:1], c)), "uncertainty": (noise,)}
        born = {name: n.init(jax.random.fold_in(key, i), *inputs[name]) for i, (name, n) in enumerate(nets.items())}
        params = {name: p for name, (p, _) in born.items()}
        params.update({name: parts.copy(p) for name, p in (priors or {}).items() if name in params})
        params["denoiser"] = normalize(params["denoiser"])
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt={"denoiser": optimizer.init(params)},
            ema=() if ema is None else ema.init(params),
            extra={"net": {name: s for name, (_, s) in born.items()}, "times": () if times is None else times.init()},
        )

    def batch_loss(params, state, batch, draws):
        calls = {
            name: parts.Calls(n, params[name], state.extra["net"][name], fold(draws.local, i))
            for i, (name, n) in enumerate(nets.items())
        }
        models = {"denoiser": denoise(lambda x, noise, c, key: calls["denoiser"](x, noise, c))}
        if uncertainty is not None:
            models["uncertainty"] = lambda log_snr: calls["uncertainty"](-log_snr / 8)
        if times is not None:

            def draw(keys):
                u = SPREADS[spread](draws.shared, keys, keys.shape[0], draws.offset, draws.total)
                t = times.sample(state.extra["times"], u)
                return t, times.log_density(state.extra["times"], t)

            models["times"] = draw
        dropped = parts.drop_condition(fold(draws.keys, 1), parts.condition(batch, cond), drop)
        values, aux = loss(fold(draws.keys, 0), models, {**batch, "cond": dropped})
        return jnp.mean(values), (aux, {name: c.state for name, c in calls.items()})

    def step(key, state, batch):
        draws = parts.draws(key, state.step, batch["x"].shape[0], axis_name)
        value_and_grad = jax.value_and_grad(batch_loss, has_aux=True)
        (value, (aux, net_states)), grads = value_and_grad(state.params, state, batch, draws)
        value, grads, net_states = pmean((value, grads, net_states), axis_name)
        updates, opt = optimizer.update(grads, state.opt["denoiser"], state.params)
        params = optax.apply_updates(state.params, updates)
        params = {**params, "denoiser": normalize(params["denoiser"])}
        extra = {"net": net_states, "times": state.extra["times"]}
        if times is not None:
            t, integrand = jax.lax.stop_gradient(gather((aux["t"], aux["integrand"]), axis_name))
            extra["times"] = times.update(state.extra["times"], t, integrand)
        new = State(
            step=state.step + 1,
            params=params,
            opt={"denoiser": opt},
            ema=() if ema is None else ema.update(state.ema, params, state.step + 1),
            extra=extra,
            frozen=state.frozen,
        )
        reported = {name: jnp.mean(aux[name]) for name in ("eps_mse", "vlb", "uncertainty") if name in aux}
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads), **pmean(reported, axis_name)}
        return new, metrics

    def sample(key, state, n, cond=None):
        if sampler is None:
            raise ValueError("sampler: expected one at construction to draw samples, got None")
        return sampler(key, trained_denoiser(net, denoise, state, ema), n, cond)

    return Algorithm(init, step, sample)
