"""The two networks of a game inside one traced update, and the sum of their penalties."""

import jax
import jax.numpy as jnp

from genjax.core.keys import fold
from genjax.losses.penalties import Memory, Penalty


def streams(rng, i):
    """The random streams of call i of a network."""
    return {"dropout": fold(rng, 2 * i), "noise": fold(rng, 2 * i + 1)}


def call(net, params, state, x, cond, rng, i=0, **options):
    """(output, new state) of a network in training; an empty condition is None."""
    return net.apply(params, state, x, cond or None, train=True, rngs=streams(rng, i), **options)


def with_fields(critique, fields):
    """The Critique with `fields` in its `extra`."""
    return critique._replace(extra={**(critique.extra or {}), **fields})


class Critic:
    """What a penalty is given as `d_fn`: x -> Critique whose logits are the loss's `logit`.

    Every call starts from the same mutable state, which is thrown away.
    """

    def __init__(self, net, params, state, rng, cond, options, view, logit):
        self.net, self.params, self.state, self.rng = net, params, state, rng
        self.cond, self.options, self.view, self.logit = cond, options, view, logit

    def __call__(self, x, cond=None):
        cond = self.cond if cond is None else {**self.cond, **cond}
        critique = call(self.net, self.params, self.state, self.view(x), cond, self.rng, **self.options)[0]
        return critique._replace(logits=self.logit(critique))


class Maker:
    """What a penalty of the generator is given as `g_fn`: z -> x, its new state thrown away.

    `styles(z)` and `synthesize(ws)` are the two halves of a generator that has them.
    """

    def __init__(self, net, params, state, rng, cond, options):
        self.net, self.params, self.state, self.rng, self.cond, self.options = net, params, state, rng, cond, options

    def __call__(self, z):
        return call(self.net, self.params, self.state, z, self.cond, self.rng, **self.options)[0]

    def styles(self, z):
        return call(self.net, self.params, self.state, z, self.cond, self.rng, method="styles")[0]

    def synthesize(self, ws):
        rngs = streams(self.rng, 1)
        return self.net.apply(self.params, self.state, ws, train=True, rngs=rngs, method="synthesize")[0]


def check_penalties(penalties, field):
    """Raises TypeError or ValueError for what is no dict of Penalties, or a weight or interval out of range."""
    if not hasattr(penalties, "items"):
        raise TypeError(f"{field}: expected a dict of name -> Penalty, got {penalties!r}")
    for name, penalty in penalties.items():
        if not isinstance(penalty, Penalty):
            raise TypeError(f"{field}.{name}: expected a Penalty, got {penalty!r}")
        if penalty.every < 1 or int(penalty.every) != penalty.every:
            raise ValueError(f"{field}.{name}.every: expected a whole number >= 1, got {penalty.every}")
    return dict(penalties)


def memories(penalties, params):
    """The first state of every penalty that has one."""
    kept = {name: p.fn for name, p in penalties.items() if isinstance(p.fn, Memory)}
    return {name: memory.init(params) for name, memory in kept.items()}


def _value(penalty, keys, player, x, memory):
    """(mean over the batch, new memory or None)."""
    if isinstance(penalty.fn, Memory):
        values, memory = penalty.fn.fn(keys, player, x, memory)
        return jnp.mean(values), jax.lax.stop_gradient(memory)
    return jnp.mean(penalty.fn(keys, player, x)), None


def _numbered(penalties, keys):
    """(name, penalty, keys of its own) of each."""
    return [(name, p, fold(keys, i)) for i, (name, p) in enumerate(penalties.items())]


def steady(penalties, keys, player, x, old):
    """The penalties of every update: (weighted sum, (values, new memories))."""
    total, values, new = 0.0, {}, {}
    for name, penalty, own in _numbered(penalties, keys):
        if penalty.every == 1:
            values[name], memory = _value(penalty, own, player, x, old.get(name))
            total = total + penalty.weight * values[name]
            if memory is not None:
                new[name] = memory
    return total, (values, new)


def lazy(penalties, keys, make_player, params, x, old, turn):
    """The penalties of some updates: (gradient, values, new memories), computed only on their turns.

    The branch depends on `turn` alone, so it stays a branch under `vmap` over seeds that share the step. On its
    turn a penalty and its value count `every` times, so that averages over updates are those of the penalty.

    Args:
      make_player: params -> the player, that it may be differentiated.
      turn: number of the update, traced.
    """
    total, values, new = jax.tree.map(jnp.zeros_like, params), {}, {}
    for name, penalty, own in _numbered(penalties, keys):
        if penalty.every == 1:
            continue

        def weighted(params, penalty=penalty, own=own, name=name):
            value, memory = _value(penalty, own, make_player(params), x, old.get(name))
            return penalty.weight * penalty.every * value, (penalty.every * value, memory)

        def on(params, weighted=weighted):
            (_, aux), gradient = jax.value_and_grad(weighted, has_aux=True)(params)
            return gradient, *aux

        def off(params, on=on, name=name):
            shape = jax.eval_shape(on, params)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape[:2])
            return *zeros, old.get(name)

        gradient, values[name], memory = jax.lax.cond(turn % penalty.every == 0, on, off, params)
        total = jax.tree.map(jnp.add, total, gradient)
        if memory is not None:
            new[name] = memory
    return total, values, new
