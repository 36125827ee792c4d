"""Adversarial training: two networks, two optimizers, any loss and any penalties, one recipe.

g, d = linen_net(MLPGenerator(shape=(2,))), linen_net(MLPDiscriminator())
algorithm = gan(
    g, d, relativistic_pairing(), optax.adam(1e-3, 0.0, 0.9), optax.adam(1e-3, 0.0, 0.9),
    latent=normal(8), penalties={"r1_r2": Penalty(r1_r2(), 0.1)},
)

One step updates the critic n_critic times, each time on reals of its own and on new latents, then the generator
once. A batch therefore holds n_critic * B examples; example r belongs to update r modulo n_critic, so that a batch
split over devices is divided in the same way. The generator's update sees the last update's reals where its loss
asks for reals. Mutable state of the critic is threaded from the reals to the generated samples of its own loss;
penalties and the generator's update start from what is stored and throw theirs away. The generator's is kept from
its own update alone.
"""

import flax
import jax
import jax.numpy as jnp
import optax

from genjax.algorithms import parts, players
from genjax.algorithms.games import Round, chain
from genjax.core.collectives import pmean
from genjax.core.keys import fold, per_sample, sample_keys, uniform
from genjax.core.types import Algorithm, Critique, State
from genjax.data.augment.base import Augment, fixed
from genjax.losses.adversarial import AdversarialLoss
from genjax.networks.gan import standing_statistics

STANDING = (32, 64)  # batches and their size, of standing statistics
FAKE_LABELS = ("paired", "uniform")


def trained_generator(net, state, ema=None, track=0):
    """`generate(z, cond=None, key=None, **options) -> x` of a State, for sampling and for a look at its latent space.

    Args:
      net: the generator's Net.
      ema: the EMA given to `gan`, whose averaged weights are used; None for the raw weights.
      track: which average, where there are several.

    `key` (one, or one a sample) serves generators that draw noise; each sample then has its own. Options go to the
    network.
    """
    params = (state.params if ema is None else ema.read(state.ema, track))["generator"]
    collections = state.extra["net"]["generator"]

    def generate(z, cond=None, key=None, **options):
        def make(z, cond, rngs=None):
            return net.apply(params, collections, z, cond, train=False, rngs=rngs, **options)[0]

        try:
            jax.eval_shape(make, z, cond)
        except flax.errors.InvalidRngError:
            keys = per_sample(jax.random.key(0) if key is None else key, len(z))
            one = lambda key, z, c: make(z[None], jax.tree.map(lambda a: a[None], c), {"noise": key})[0]
            return jax.vmap(one)(keys, z, cond)
        return make(z, cond)

    return generate


def _as_augment(augment):
    if augment is None or isinstance(augment, Augment):
        return fixed(lambda keys, x: x)() if augment is None else augment
    return fixed(lambda keys, x: augment(keys, x))()


def _check(loss, latent, n_critic, fake_labels, num_classes, cond, d_cond, simultaneous):
    if not isinstance(loss, AdversarialLoss):
        raise TypeError(f"loss: expected an AdversarialLoss, got {loss!r}")
    if not hasattr(latent, "sample"):
        raise TypeError(f"latent: expected a Latent, got {latent!r}")
    if n_critic < 1 or int(n_critic) != n_critic:
        raise ValueError(f"n_critic: expected a whole number >= 1, got {n_critic}")
    if simultaneous and n_critic != 1:
        raise ValueError(f"simultaneous: expected n_critic = 1, got {n_critic}")
    if fake_labels not in FAKE_LABELS:
        raise ValueError(f"fake_labels: expected one of {list(FAKE_LABELS)}, got {fake_labels!r}")
    if fake_labels == "uniform" and not (num_classes and "label" in cond):
        raise ValueError("fake_labels: expected a generator that is given labels, and num_classes, for 'uniform'")
    if "label" in d_cond and "label" not in cond:
        raise ValueError("d_cond: expected a generator that is given the label too (cond), got one that is not")


def gan(
    generator,
    discriminator,
    loss,
    g_optimizer,
    d_optimizer,
    *,
    latent,
    penalties=(),
    g_penalties=(),
    n_critic=1,
    ema=None,
    augment=None,
    cond=(),
    d_cond=None,
    fake_labels="paired",
    num_classes=0,
    prepare=(),
    simultaneous=False,
    g_post_update=None,
    d_post_update=None,
    truncation=None,
    truncate="latent",
    axis_name=None,
):
    """The recipe of every game of a generator with a discriminator.

    Args:
      generator: Net called as (z [B, dim], cond) -> x.
      discriminator: Net called as (x, cond) -> Critique.
      loss: AdversarialLoss.
      g_optimizer, d_optimizer: Optax transforms.
      latent: a `games.Latent`, the law of z.
      penalties: name -> Penalty of the critic (`losses.penalties`).
      g_penalties: name -> Penalty of the generator.
      n_critic: updates of the critic a step; a batch holds as many times the examples of one update.
      ema: `train.ema.EMA` of the generator, or None.
      augment: what the critic sees of reals and of generated samples: (keys, x) -> x, or a `data.augment.Augment`,
        whose controller is then told the critic's logits of reals after each of its updates.
      cond: names of the batch's fields that condition the generator.
      d_cond: those that the discriminator is given; None for the same.
      fake_labels: "paired": generated sample i takes the condition of real i of the batch, so the law of the data's
        labels; "uniform": labels drawn evenly from num_classes.
      num_classes: of the labels, for "uniform", for samples without a condition, and for standing statistics.
      prepare: functions (step, keys, Round) -> Round, one after the other (`games.tempering`, `games.growing`).
      simultaneous: the generator's gradient is taken at the critic before its update.
      g_post_update, d_post_update: params -> params after every update, and at the start (`clip_weights`).
      truncation, truncate: of `sample`, by default; "latent" draws truncated latents, "style" hands the number to
        the generator as `psi`, which pulls its styles towards their mean.
      axis_name: axis over which the batch is split, under pmap, shard_map or vmap. Losses, penalties and networks
        that couple samples take it too.

    Returns:
      Algorithm. State.params and State.opt hold "generator" and "discriminator", State.ema the average of
      {"generator"}, State.extra "net" (mutable collections), "penalties" and "g_penalties" (memories) and "augment"
      (controller). `init(key, batch, priors)` starts from priors["generator"] and ["discriminator"] where given.
      `sample(key, state, n, cond=None, truncation=None)`; `refresh(key, state)` takes the generator's batch
      statistics anew for its averaged weights. Metrics, averaged over the updates of a step: d_loss and g_loss
      (without penalties), loss (all of both players), logit_real, logit_fake, sign_real and sign_fake (means of the
      logits and of their signs), d_grad_norm, g_grad_norm, the penalties by name (without their weight; those of
      the generator after "g_"), and what else the loss reports.

    Raises:
      TypeError, ValueError: what does not fit together, by name.
    """
    d_cond = tuple(cond if d_cond is None else d_cond)
    _check(loss, latent, n_critic, fake_labels, num_classes, cond, d_cond, simultaneous)
    if truncate not in ("latent", "style"):
        raise ValueError(f"truncate: expected 'latent' or 'style', got {truncate!r}")
    penalties = players.check_penalties(dict(penalties), "penalties")
    g_penalties = players.check_penalties(dict(g_penalties), "g_penalties")
    augment, play = _as_augment(augment), chain(*prepare)
    g_after, d_after = (f or (lambda params: params) for f in (g_post_update, d_post_update))

    def start(step, draws, chunk):
        """(Round, fields of the batch, fields of generated samples) of one update."""
        fields = {name: value for name, value in chunk.items() if name != "x"}
        z = latent.sample(fold(draws.keys, 0), len(chunk["x"]))
        round = play(step, fold(draws.keys, 1), Round(chunk["x"], z, {}, {}, {}))
        fakes = {name: fields[name] for name in {*cond, *d_cond}}
        if fake_labels == "uniform":
            u = uniform(fold(draws.keys, 2), (len(z),))
            fakes["label"] = jnp.minimum(num_classes - 1, (u * num_classes).astype(fields["label"].dtype))
        return round, fields, fakes

    def given(fields, names, round):
        return {**{name: fields[name] for name in names}, **round.cond}

    def looks(params, stored, step, draws, round, views, fields, fakes):
        """Critiques of (real view, fake view) with what the loss may read, and the state after both."""
        context = {"step": step, "margin_keys": fold(draws.keys, 7)}
        see = lambda state, x, c, i: players.call(discriminator, params, state, x, c, draws.local, i, **round.options)
        real, state = (None, stored) if views[0] is None else see(stored, views[0], given(fields, d_cond, round), 0)
        fake, state = see(state, views[1], given(fakes, d_cond, round), 1)
        known = lambda critique, f: None if critique is None else players.with_fields(critique, {**f, **context})
        return known(real, fields), known(fake, {n: fakes[n] for n in cond}), state

    def critic_update(params_g, state, step, turn, draws, chunk):
        """One update of the critic: (state: dict of what it changes, metrics)."""
        round, fields, fakes = start(step, draws, chunk)
        c_g = given(fakes, cond, round)
        make = lambda z: players.call(generator, params_g, state["g_net"], z, c_g, draws.local, 8, **round.options)[0]
        fake = jax.lax.stop_gradient(make(round.z))
        view = lambda i: lambda x: augment.apply(fold(draws.keys, i), x, state["augment"])
        shown = augment.present(fold(draws.keys, 5), round.x, fake, state["augment"])
        views = view(3)(shown), view(4)(fake)
        points = {"real": shown, "fake": fake, "z": round.z, "generate": make, **round.points}
        if fake_labels == "uniform" and d_cond:
            points["fake_cond"] = {name: fakes[name] for name in d_cond}
        keys = fold(draws.keys, 6)

        def player(params):
            c = given(fields, d_cond, round)
            return players.Critic(
                discriminator, params, state["d_net"], draws.local, c, round.options, view(3), loss.logit
            )

        def value(params):
            real, fake, d_net = looks(params, state["d_net"], step, draws, round, views, fields, fakes)
            game, aux = loss.d(real, fake)
            game = jnp.mean(game)
            total, (values, memory) = players.steady(penalties, keys, player(params), points, state["penalties"])
            sign = lambda c: jnp.mean(jnp.sign(loss.logit(c)))
            known = {"d_loss": game, "logit_real": jnp.mean(loss.logit(real)), "logit_fake": jnp.mean(loss.logit(fake))}
            known.update(sign_real=sign(real), sign_fake=sign(fake), **values, **aux)
            return game + total, (d_net, memory, known, loss.logit(real))

        (total, (d_net, memory, known, logits)), grads = jax.value_and_grad(value, has_aux=True)(state["params"])
        more, values, late = players.lazy(penalties, keys, player, state["params"], points, state["penalties"], turn)
        grads, d_net, metrics = pmean(
            (jax.tree.map(jnp.add, grads, more), d_net, {**known, **values, "loss": total}), axis_name
        )
        updates, opt = d_optimizer.update(grads, state["opt"], state["params"])
        new = {
            **state,
            "params": d_after(optax.apply_updates(state["params"], updates)),
            "opt": opt,
            "d_net": d_net,
            "penalties": {**state["penalties"], **memory, **late},
            "augment": augment.update(state["augment"], jax.lax.stop_gradient(logits)),
        }
        return new, {**metrics, "d_grad_norm": optax.tree.norm(grads)}

    def generator_update(params, opt, state, critic, step, draws, chunk):
        """One update of the generator: (params, opt, its collections, memories, metrics)."""
        round, fields, fakes = start(step, draws, chunk)
        c_g, stored = given(fakes, cond, round), state.extra["net"]["generator"]
        view = lambda i, x: augment.apply(fold(draws.keys, i), x, critic["augment"])
        keys, old = fold(draws.keys, 6), state.extra["g_penalties"]
        player = lambda p: players.Maker(generator, p, stored, draws.local, c_g, round.options)

        def value(params):
            fake, g_net = players.call(generator, params, stored, round.z, c_g, draws.local, 8, **round.options)
            views = view(3, round.x) if loss.real_in_g else None, view(4, fake)
            real, fake, _ = looks(critic["params"], critic["d_net"], step, draws, round, views, fields, fakes)
            game, aux = loss.g(fake, real)
            game = jnp.mean(game)
            total, (values, memory) = players.steady(g_penalties, keys, player(params), round.z, old)
            return game + total, (g_net, memory, {"g_loss": game, **aux, **{f"g_{k}": v for k, v in values.items()}})

        (total, (g_net, memory, known)), grads = jax.value_and_grad(value, has_aux=True)(params)
        more, values, late = players.lazy(g_penalties, keys, player, params, round.z, old, step)
        metrics = {**known, **{f"g_{name}": v for name, v in values.items()}, "loss": total}
        grads, g_net, metrics = pmean((jax.tree.map(jnp.add, grads, more), g_net, metrics), axis_name)
        updates, opt = g_optimizer.update(grads, opt, params)
        params = g_after(optax.apply_updates(params, updates))
        return params, opt, g_net, {**old, **memory, **late}, {**metrics, "g_grad_norm": optax.tree.norm(grads)}

    def step(key, state, batch):
        size = len(batch["x"])
        if size % n_critic:
            raise ValueError(f"batch: expected a multiple of n_critic = {n_critic} examples, got {size}")
        cut = lambda a: jnp.swapaxes(a.reshape(size // n_critic, n_critic, *a.shape[1:]), 0, 1)
        chunks = jax.tree.map(cut, dict(batch))
        place = lambda i: parts.draws(jax.random.fold_in(key, i), state.step, size // n_critic, axis_name)
        before = {
            "params": state.params["discriminator"],
            "opt": state.opt["discriminator"],
            "d_net": state.extra["net"]["discriminator"],
            "g_net": state.extra["net"]["generator"],
            "penalties": state.extra["penalties"],
            "augment": state.extra["augment"],
        }
        params_g = state.params["generator"]

        def update(carry, inputs):
            i, chunk = inputs
            return critic_update(params_g, carry, state.step, state.step * n_critic + i, place(i), chunk)

        last = jax.tree.map(lambda a: a[-1], chunks)
        if n_critic == 1:
            critic, metrics = update(before, (0, last))
        else:
            critic, metrics = jax.lax.scan(update, before, (jnp.arange(n_critic), chunks))
            metrics = jax.tree.map(lambda m: jnp.mean(m, axis=0), metrics)
        params_g, opt_g, g_net, memory, found = generator_update(
            params_g,
            state.opt["generator"],
            state,
            before if simultaneous else critic,
            state.step,
            place(n_critic),
            last,
        )
        found["loss"] = found["loss"] + metrics["loss"]
        params = {"generator": params_g, "discriminator": critic["params"]}
        new = State(
            step=state.step + 1,
            params=params,
            opt={"generator": opt_g, "discriminator": critic["opt"]},
            ema=() if ema is None else ema.update(state.ema, {"generator": params_g}, state.step + 1),
            extra={
                "net": {"generator": g_net, "discriminator": critic["d_net"]},
                "penalties": critic["penalties"],
                "g_penalties": memory,
                "augment": critic["augment"],
            },
            frozen=state.frozen,
        )
        return new, {**metrics, **found}

    def init(key, batch, priors=None):
        parts.condition(batch, cond)
        chunk = {name: value[: len(value) // n_critic] for name, value in batch.items()}
        size = len(chunk["x"])
        round, fields, fakes = start(
            jnp.zeros((), jnp.int32), parts.Draws(sample_keys(key, size), key, key, 0, size), chunk
        )
        of = lambda i: jax.random.fold_in(key, i)
        g, g_net = generator.init(of(0), round.z, given(fakes, cond, round) or None)
        d, d_net = discriminator.init(of(1), round.x, given(fields, d_cond, round) or None)
        _check_needs(loss, discriminator, (d, d_net), round, given(fields, d_cond, round), fields, cond)
        params = {"generator": g, "discriminator": d}
        params.update({name: parts.copy(p) for name, p in (priors or {}).items() if name in params})
        params = {"generator": g_after(params["generator"]), "discriminator": d_after(params["discriminator"])}
        return State(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt={
                "generator": g_optimizer.init(params["generator"]),
                "discriminator": d_optimizer.init(params["discriminator"]),
            },
            ema=() if ema is None else ema.init({"generator": params["generator"]}),
            extra={
                "net": {"generator": g_net, "discriminator": d_net},
                "penalties": players.memories(penalties, params["discriminator"]),
                "g_penalties": players.memories(g_penalties, params["generator"]),
                "augment": augment.init(),
            },
        )

    def even_labels(keys, n):
        if "label" not in cond:
            return None
        if not num_classes:
            raise ValueError("cond: expected a label [n] for each sample, or num_classes at construction, got neither")
        return {"label": jnp.floor(uniform(fold(keys, 2), (n,)) * num_classes).astype(jnp.int32)}

    def sample(key, state, n, cond=None, truncation=truncation):
        keys = per_sample(key, n)
        cond = even_labels(keys, n) if cond is None else cond
        options = {}
        if truncation is not None and truncate == "style":
            options, truncation = {"psi": truncation}, None
        z = latent.sample(fold(keys, 0), n, truncation)
        return trained_generator(generator, state, ema)(z, cond, fold(keys, 1), **options)

    def refresh(key, state):
        collections = state.extra["net"]["generator"]
        if "batch_stats" not in collections:
            return state
        count, size = STANDING
        params = (state.params if ema is None else ema.read(state.ema))["generator"]
        keys = sample_keys(key, count * size)
        fold_up = lambda a: a.reshape(count, size, *a.shape[1:])
        inputs = jax.tree.map(fold_up, (latent.sample(fold(keys, 0), count * size), even_labels(keys, count * size)))

        def update(stats, inputs):
            z, c = inputs
            stored = {**collections, "batch_stats": stats}
            return players.call(generator, params, stored, z, c, key)[1]["batch_stats"]

        stats = standing_statistics(update, collections["batch_stats"], inputs)
        net = {**state.extra["net"], "generator": {**collections, "batch_stats": stats}}
        return state._replace(extra={**state.extra, "net": net})

    alone = lambda fn: _alone(fn, axis_name)
    return Algorithm(alone(init), step, alone(sample), alone(refresh))


def _alone(fn, axis_name):
    """`fn` for calls outside the axis, of which it then sees one device: networks and prepares ask for its name."""
    if axis_name is None:
        return fn

    def call(*args, **options):
        found = jax.vmap(lambda _: fn(*args, **options), axis_name=axis_name)(jnp.zeros(1))
        return jax.tree.map(lambda a: a[0], found)

    return call


def _check_needs(loss, net, born, round, cond, fields, g_cond):
    """Raises ValueError where the loss reads something that neither the critic nor the batch gives."""
    key = jax.random.key(0)
    critique = jax.eval_shape(lambda x, c: players.call(net, *born, x, c, key, **round.options)[0], round.x, cond)
    if not isinstance(critique, Critique):
        raise TypeError(f"discriminator: expected a network that returns a Critique, got {type(critique).__name__}")
    there = {"step", "margin_keys", *fields, *(critique.extra or {}), *(["fake_label"] if "label" in g_cond else [])}
    there |= {name for name in ("logits", "features") if getattr(critique, name) is not None}
    for name in loss.needs:
        if name not in there:
            raise ValueError(
                f"loss: expected {name!r} from the discriminator, its head or the condition, got {sorted(there)}"
            )
