"""Optimizers and learning-rate schedules by name, as Optax transforms."""

import inspect

import jax
import jax.numpy as jnp
import optax


def _steps(name, value, least=0):
    if not value >= least:
        raise ValueError(f"{name}: expected a number of steps >= {least}, got {value}")
    return value


def _ramp(step, warmup):
    """0 ... 1 over the first `warmup` steps, 1 from then on (and at once for warmup 0)."""
    return jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def constant(learning_rate, warmup=0):
    """learning_rate after a linear ramp over `warmup` steps."""
    _steps("warmup", warmup)
    return lambda step: learning_rate * _ramp(step, warmup)


def linear(learning_rate, steps, warmup=0, end=0.0):
    """Ramp, then straight down to end * learning_rate at `steps`."""
    _steps("warmup", warmup)
    _steps("steps", steps, warmup + 1)

    def schedule(step):
        done = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
        return learning_rate * jnp.minimum(_ramp(step, warmup), 1 + (end - 1) * done)

    return schedule


def cosine(learning_rate, steps, warmup=0, end=0.0):
    """Ramp, then half a cosine down to end * learning_rate at `steps` (1608.03983)."""
    _steps("warmup", warmup)
    _steps("steps", steps, warmup + 1)

    def schedule(step):
        done = jnp.clip((step - warmup) / (steps - warmup), 0.0, 1.0)
        return learning_rate * jnp.minimum(_ramp(step, warmup), end + (1 - end) * (1 + jnp.cos(jnp.pi * done)) / 2)

    return schedule


def inverse_sqrt(learning_rate, reference, warmup=0):
    """learning_rate / sqrt(max(step / reference, 1)), ramped up over `warmup` steps (EDM2, 2312.02696)."""
    _steps("warmup", warmup)
    _steps("reference", reference, 1)
    return lambda step: learning_rate * _ramp(step, warmup) / jnp.sqrt(jnp.maximum(step / reference, 1.0))


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "inverse_sqrt": inverse_sqrt}


def _is_matrix(params):
    """Weight decay is for kernels: not for biases, gains and other vectors."""
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    """Adam (1412.6980); weight_decay is added to the gradient (L2)."""
    decay = [optax.add_decayed_weights(weight_decay, mask=_is_matrix)] if weight_decay else []
    return optax.chain(*decay, optax.adam(learning_rate, b1, b2, eps))


def adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2):
    """AdamW: decoupled weight decay on kernels (1711.05101)."""
    return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=_is_matrix)


def sgd(learning_rate, momentum=0.0, nesterov=False, weight_decay=0.0):
    """Gradient descent with momentum."""
    decay = [optax.add_decayed_weights(weight_decay, mask=_is_matrix)] if weight_decay else []
    return optax.chain(*decay, optax.sgd(learning_rate, momentum or None, nesterov))


def rmsprop(learning_rate, decay=0.9, eps=1e-8, weight_decay=0.0):
    """RMSProp, of Wasserstein GANs."""
    decayed = [optax.add_decayed_weights(weight_decay, mask=_is_matrix)] if weight_decay else []
    return optax.chain(*decayed, optax.rmsprop(learning_rate, decay, eps))


def lion(learning_rate, b1=0.9, b2=0.99, weight_decay=0.0):
    """Lion (2302.06675), decoupled weight decay on kernels."""
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=_is_matrix)


OPTIMIZERS = {"adam": adam, "adamw": adamw, "sgd": sgd, "rmsprop": rmsprop, "lion": lion}


def _choose(table, field, name, kwargs, fixed):
    """The constructor of that name, its keyword arguments checked against its signature."""
    if name not in table:
        raise ValueError(f"{field}: expected one of {sorted(table)}, got {name!r}")
    known = [p for p in inspect.signature(table[name]).parameters if p not in fixed]
    for key in kwargs:
        if key not in known:
            raise ValueError(f"{field}.{key}: {name!r} expected one of {known}")
    return table[name]


def make_schedule(name="constant", learning_rate=1e-3, **kwargs):
    """A learning-rate schedule, step -> rate, by its name in `SCHEDULES`.

    Raises:
      ValueError: unknown name or argument, or a learning rate that is not positive.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate: expected a number > 0, got {learning_rate}")
    chosen = _choose(SCHEDULES, "schedule", name, kwargs, ("learning_rate",))
    missing = [
        p.name
        for p in inspect.signature(chosen).parameters.values()
        if p.default is p.empty and p.name not in ("learning_rate", *kwargs)
    ]
    if missing:
        raise ValueError(f"schedule.{missing[0]}: {name!r} needs this number")
    return chosen(learning_rate, **kwargs)


def make_optimizer(name="adam", learning_rate=1e-3, schedule=None, *, clip=0.0, accumulate=1, **kwargs):
    """An Optax transform from names and numbers.

    Args:
      name: a name in `OPTIMIZERS`.
      learning_rate: number > 0.
      schedule: None, or a mapping such as {"name": "cosine", "steps": 1000, "warmup": 100}; it counts
        optimizer steps, `accumulate` batches each.
      clip: largest global norm of the gradient, 0 for no limit.
      accumulate: batches whose gradients are averaged into one step.
      **kwargs: numbers of the optimizer (b1, b2, momentum, weight_decay ...).

    Raises:
      ValueError: unknown name or argument, numbers out of range.
    """
    chosen = _choose(OPTIMIZERS, "optimizer", name, kwargs, ("learning_rate",))
    rate = make_schedule(**{**dict(schedule or {}), "learning_rate": learning_rate})
    if clip < 0:
        raise ValueError(f"clip: expected a number >= 0, got {clip}")
    if accumulate < 1 or int(accumulate) != accumulate:
        raise ValueError(f"accumulate: expected a whole number >= 1, got {accumulate}")
    clipping = [optax.clip_by_global_norm(clip)] if clip else []
    transform = optax.chain(*clipping, chosen(rate, **kwargs))
    if accumulate > 1:
        return optax.MultiSteps(transform, int(accumulate)).gradient_transformation()
    return transform
