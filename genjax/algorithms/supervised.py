"""Training one network by a mean over samples of any Loss: classifiers, guides, regressors, encoders."""

import jax
import jax.numpy as jnp
import optax

from genjax.algorithms import parts
from genjax.core.collectives import pmean
from genjax.core.keys import fold
from genjax.core.types import Algorithm, State


def supervised(net, loss, optimizer, ema=None, *, inputs, name="guide", models=None, trainable=None, axis_name=None):
    """The recipe of everything that is one network under one loss.

    Args:
      net: Net.
      loss: Loss on models {name: (*x) -> output, **models}.
      optimizer: Optax transform.
      ema: as in `diffusion`, or None.
      inputs: batch -> the arguments that the network is initialized with.
      name: of the network, in `models` and in State.params.
      models: further callables that the loss needs, frozen and closed over.
      trainable: params -> what is trained in their place, and back: a pair (take, put) with put(params, taken) ->
        params, for adapters on a frozen network. None: all of it.
      axis_name: axis over which the batch is split.

    Returns:
      Algorithm whose `init(key, batch, priors)` starts from priors[name] where there is one. State.params[name] is
      what is trained; where `trainable` is given, State.frozen[name] is the rest. Metrics: loss, grad_norm, and the
      loss's own scalars a sample. It draws no samples.
    """

    def init(key, batch, priors=None):
        params, extra = net.init(fold(key, 0), *inputs(jax.tree.map(lambda a: a[:1], batch)))
        params = parts.copy((priors or {}).get(name, params))
        frozen = ()
        if trainable is not None:
            frozen, params = {name: params}, parts.copy(trainable[0](params))
        params = {name: params}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt={name: optimizer.init(params)},
            ema=() if ema is None else ema.init(params),
            extra={"net": {name: extra}},
            frozen=frozen,
        )

    def whole(params, frozen):
        return params[name] if trainable is None else trainable[1](frozen[name], params[name])

    def batch_loss(params, state, batch, draws):
        call = parts.Calls(net, whole(params, state.frozen), state.extra["net"][name], fold(draws.local, 0))
        values, aux = loss(fold(draws.keys, 0), {name: call, **(models or {})}, batch)
        return jnp.mean(values), (aux, call.state)

    def step(key, state, batch):
        draws = parts.draws(key, state.step, jax.tree.leaves(batch)[0].shape[0], axis_name)
        value_and_grad = jax.value_and_grad(batch_loss, has_aux=True)
        (value, (aux, net_state)), grads = value_and_grad(state.params, state, batch, draws)
        value, grads, net_state = pmean((value, grads, net_state), axis_name)
        updates, opt = optimizer.update(grads, state.opt[name], state.params)
        params = optax.apply_updates(state.params, updates)
        new = state._replace(
            step=state.step + 1,
            params=params,
            opt={name: opt},
            ema=() if ema is None else ema.update(state.ema, params, state.step + 1),
            extra={"net": {name: net_state}},
        )
        reported = {k: jnp.mean(v) for k, v in aux.items() if k != "t"}
        return new, {"loss": value, "grad_norm": optax.tree.norm(grads), **pmean(reported, axis_name)}

    def sample(key, state, n, cond=None):
        raise ValueError(f"sample: expected a recipe of a generator, got one of the network {name!r}")

    return Algorithm(init, step, sample)
