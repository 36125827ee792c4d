"""The vocabulary: the few types that every room of genjax speaks.

Signatures (see docs/architecture.md):

  Denoiser    (x, t, cond=None, key=None) -> Prediction
  Field       (x, t, cond=None) -> array
  Guidance    (Denoiser, Process) -> Denoiser
  StepTransform   Solver -> Solver
  Loss        (key, models, batch) -> ([B] or scalar, aux)

x is [B, ...]; t a scalar or [B]; cond a dict of arrays; key one key or keys [B].
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax


class Prediction(NamedTuple):
    """What a denoiser says of x_t; for Gaussian processes `x0` and `eps` are both filled."""

    x0: Any = None  # [B, ...] E[x_0 | x_t]
    eps: Any = None  # [B, ...] E[eps | x_t]
    logits: Any = None  # [B, ..., V] categorical law of x_0
    x1: Any = None  # [B, ...] expected other end of an interpolant or a bridge
    v: Any = None  # [B, ...] or scalar in [0, 1], fraction of the log-variance range (0 lower, 1 upper)
    features: Any = None  # any pytree of named intermediate activations


class Info(NamedTuple):
    """Diagnostics of one solver step; never needed by the next step."""

    pred: Prediction | None = None
    log_prob: Any = None  # [B] log-probability of the drawn state under the step's law
    extra: Any = None


class SolverState(NamedTuple):
    """What a solver hands from step to step."""

    x: Any  # [B, ...]
    memory: Any = ()  # pytree; leaves are scalars or start with the batch axis


class Solver(NamedTuple):
    """One step from time t to s.

    `evals` and `evals_last` count denoiser evaluations of an interior step and of a step that ends
    at sigma = 0 (there every solver is first order).
    """

    init: Callable  # (x, t) -> SolverState
    step: Callable  # (keys, denoiser, process, state, t, s) -> (SolverState, Info)
    propose: Callable | None = None  # (denoiser, process, state, t, s, keys=None) -> (Transition, memory, Info)
    evals: int = 1
    evals_last: int = 1


class Process(Protocol):
    """A forward corruption; a registered pytree dataclass.

    What depends on a condition, an end point or a context of each sample is bound first, by
    `bind(**context)`; a process without context raises TypeError if given any.
    """

    t_min: Any
    t_max: Any

    def corrupt(self, keys, x0, t): ...  # -> (x_t, target)

    def posterior(self, x, pred, t, s, eta=1.0): ...  # -> Transition

    def prior(self, keys, like, t=None): ...  # -> x

    def noise(self, keys, like): ...  # -> array

    def bind(self, **context): ...  # -> Process


class Transition(Protocol):
    """The law of x_s given x_t."""

    def sample(self, keys): ...

    def log_prob(self, x): ...  # -> [B]


class State(NamedTuple):
    """Everything that a training recipe carries from step to step."""

    step: Any  # int32 scalar
    params: Any  # name -> parameters, one entry a network
    opt: Any  # name -> optimizer state
    ema: Any = ()  # averaged parameters
    extra: Any = ()  # mutable collections, tables, buffers, controllers
    frozen: Any = ()  # reference networks, never updated


class Algorithm(NamedTuple):
    """A training recipe of one network or many; pure, so it runs under jit, scan, vmap, pmap or a mesh."""

    init: Callable  # (key, batch, priors={}) -> State
    step: Callable  # (key, state, batch) -> (State, metrics)
    sample: Callable  # (key, state, n, cond=None) -> [n, ...]
    refresh: Callable | None = None  # (key, state) -> State


class Net(NamedTuple):
    """A network as two functions."""

    init: Callable  # (key, *x) -> (params, state)
    apply: Callable  # (params, state, *x, train=False, rngs=None) -> (out, state)


class Critique(NamedTuple):
    """What a discriminator returns."""

    logits: jax.Array  # [B] or [B, ...]
    features: Any = None
    extra: Any = None


class Operator(Protocol):
    """The map of a measurement y = A(x) + n."""

    def forward(self, x, phi=None): ...


class Noise(Protocol):
    """The law of the noise of a measurement."""

    def sample(self, keys, mean): ...  # -> y

    def log_prob(self, r, mean=None): ...  # of the residual r = y - mean -> [B]; Poisson noise needs the mean


class Measurement(NamedTuple):
    """A measured y, with the operator and the noise law it came from."""

    operator: Any
    noise: Any
    y: Any  # [B, ...]

    def log_prob(self, x0, phi=None):
        """log p(y | x0), [B]."""
        mean = self.operator.forward(x0, phi)
        return self.noise.log_prob(self.y - mean, mean)
