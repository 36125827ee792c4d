"""What a sampler with little noise can reach at best: the divergence-entropy function on finite alphabets.

A deterministic generator never puts out more entropy than its noise has, so with R bits of noise it makes some law
q with H(q) <= R, and its divergence from p is at least (2403.09196)

  D(R) = min_q div(p, q)  subject to  H(q) <= R.

H is concave, so the constraint is that of a difference of convex functions. The convex-concave procedure replaces
H(q) by its tangent at q_k, which is the cross-entropy -<log q_k, q> >= H(q), solves that convex program exactly,

  reverse_kl  KL(q || p):  q ~ p q_k^a,                      a >= 0 where the constraint holds with equality
  kl          KL(p || q):  q_i = p_i / (1 + a (c_i - R)),    c = -log q_k, likewise
  tv          total variation: mass goes from the largest c to the smallest until the constraint holds

and repeats; each step keeps H(q) <= R and does not raise the divergence. For the reverse KL the answer is known:
q ~ p^b with the b >= 1 at which H(q) = R (of all laws of one entropy, Gibbs' have the least energy -<log p, q>).
All in bits, float64, on the host.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

TINY = 1e-300  # in the place of probability 0 under a logarithm


def _law(p):
    p = np.asarray(p, np.float64)
    if p.ndim != 1 or not (p >= 0).all() or not p.sum() > 0:
        raise ValueError(f"p: expected probabilities [K], got shape {p.shape}, least {p.min(initial=0.0)}")
    return p / p.sum()


def _log2(p):
    return np.log2(np.maximum(p, TINY))


def entropy(p):
    """H(p) in bits, of probabilities or counts [..., K]."""
    p = np.asarray(p, np.float64)
    p = p / p.sum(axis=-1, keepdims=True)
    return -np.sum(p * _log2(p), axis=-1)


def _kl(a, b):
    return np.sum(a * (_log2(a) - _log2(b)), axis=-1)


DIVERGENCES = {
    # name: (p [K], q [..., K]) -> [...]
    "reverse_kl": lambda p, q: _kl(q, p),
    "kl": lambda p, q: _kl(p, q),
    "tv": lambda p, q: 0.5 * np.sum(np.abs(p - q), axis=-1),
}


def _named(divergence):
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence: expected one of {sorted(DIVERGENCES)}, got {divergence!r}")
    return DIVERGENCES[divergence]


def _gibbs(log_weights, power, tilt):
    log_q = log_weights + power * tilt
    q = np.exp2(log_q - log_q.max())
    return q / q.sum()


def _crossing(excess):
    """The a >= 0 at which a function that starts positive and falls first reaches 0."""
    high = 1.0
    while excess(high) > 0 and high < 1e12:
        high *= 2
    return brentq(excess, 0.0, high, xtol=1e-13, rtol=1e-13) if excess(high) < 0 else high


def tempered(p, bits):
    """q ~ p^b with entropy `bits`, b >= 0: of all laws with that entropy the nearest to p in KL(q || p).

    Raises:
      ValueError: `bits` is not above the entropy of the uniform law on the largest atoms, or above log2 K.
    """
    p = _law(p)
    low, high = math.log2(np.sum(p == p.max())), math.log2(np.sum(p > 0))
    if not low < bits <= high + 1e-12:
        raise ValueError(f"bits: expected a number in ({low:.4g}, {high:.4g}], got {bits}")
    q, seen = np.zeros_like(p), p > 0
    tilt = np.log2(p[seen] / p.max())
    law = lambda b: _gibbs(0.0, b, tilt)
    q[seen] = law(_crossing(lambda b: entropy(law(b)) - bits))
    return q


def _largest(p, k):
    """p on its k largest atoms, unnormalized."""
    q = np.zeros_like(p)
    order = np.argsort(-p, kind="stable")[:k]
    q[order] = p[order]
    return q


def truncated(p, bits):
    """The law of the k largest atoms of p, k as large as an entropy of at most `bits` allows."""
    p = _law(p)
    k = max(k for k in range(1, len(p) + 1) if k == 1 or entropy(_largest(p, k)) <= bits + 1e-12)
    q = _largest(p, k)
    return q / q.sum()


def _step_reverse_kl(p, cost, bits):
    at = lambda a: _gibbs(_log2(p), a, -cost)
    excess = lambda a: at(a) @ cost - bits
    return at(_crossing(excess)) if excess(0.0) > 0 else p


def _step_kl(p, cost, bits):
    if p @ cost <= bits:
        return p
    # sum q = 1 at a = 0 too; convex in a, falling there, infinite at the end: the second root is wanted
    limit = 1 / (bits - cost.min())
    total = lambda a: np.sum(p / (1 + a * (cost - bits))) - 1
    low = 0.5 * limit
    while total(low) >= 0 and low > 1e-9 * limit:
        low *= 0.5
    high = limit * (1 - 1e-15)
    a = brentq(total, low, high, xtol=1e-300, rtol=1e-14) if total(low) < 0 < total(high) else high
    q = p / (1 + a * (cost - bits))
    return q / q.sum()


def _step_tv(p, cost, bits):
    q, best = p.copy(), np.argmin(cost)
    excess = q @ cost - bits
    for i in np.argsort(-cost, kind="stable"):
        gain = cost[i] - cost[best]
        if excess <= 0 or gain <= 0:
            break
        moved = min(q[i], excess / gain)
        q[i] -= moved
        q[best] += moved
        excess -= moved * gain
    return q


STEPS = {"reverse_kl": _step_reverse_kl, "kl": _step_kl, "tv": _step_tv}


def convex_concave(p, bits, divergence, start, iterations=200, tolerance=1e-10):
    """Where the convex-concave procedure ends from `start` [K], a law with H(start) <= bits: a law [K]."""
    p, q, value = _law(p), _law(start), _named(divergence)
    old = value(p, q)
    for _ in range(iterations):
        q = STEPS[divergence](p, -_log2(q), bits)
        new = value(p, q)
        if old - new <= tolerance:
            break
        old = new
    return q


def starts(p, bits, restarts=4, seed=0):
    """Laws of entropy at most `bits` to begin with: p truncated; p, parts of p and random laws, all tempered.

    For total variation, which has many local optima, the best start is a part of p (its k largest atoms, some k).
    """
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.geomspace(2, len(p), 24).astype(int))
    laws = [p, *(_largest(p, k) for k in sizes), *rng.dirichlet(np.ones(len(p)), restarts)]
    return [truncated(p, bits)] + [tempered(q, bits) for q in laws if entropy(q) > bits]


def divergence_entropy_curve(p, bits, divergence="reverse_kl", restarts=4, seed=0):
    """D(R) at each R of `bits` (2403.09196): the least divergence [len(bits)] that the procedure finds.

    Args:
      p: probabilities [K], one largest atom.
      bits: increasing, in [0, H(p)]. R = 0 is solved by trying every atom. The answer at one R is a start at the
        next, so the curve never rises.
      divergence: a name in `DIVERGENCES`; of q from p, "reverse_kl" being KL(q || p).
      restarts: random starts at each R.

    Raises:
      ValueError: a number of bits outside [0, H(p)], or an unknown divergence.
    """
    p, value, last, curve = _law(p), _named(divergence), None, []
    limit = entropy(p)
    for i, r in enumerate(bits):
        if not 0 <= r <= limit + 1e-9:
            raise ValueError(f"bits: expected numbers in [0, {limit:.4g}], got {r}")
        if r == 0:
            found = list(np.eye(len(p)))
        elif r >= limit - 1e-12:
            found = [p]
        else:
            first = starts(p, r, restarts, seed + i) + ([] if last is None else [last])
            found = [convex_concave(p, r, divergence, q) for q in first]
        last = min(found, key=lambda q: value(p, q))
        curve.append(float(value(p, last)))
    return np.array(curve)


def quantized(p, bits, divergence="reverse_kl"):
    """The best law [K] that a generator of `bits` fair bits can make: masses are multiples of 2^-bits.

    The divergences are sums of convex functions of the masses, so giving each unit where it costs least is exact.
    """
    p, units = _law(p), 2 ** int(bits)
    mass = np.arange(units + 1)[None] / units
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = {
            "reverse_kl": lambda: np.where(mass > 0, mass * (np.log2(mass) - _log2(p)[:, None]), 0.0),
            "kl": lambda: -p[:, None] * np.log2(mass),
            "tv": lambda: 0.5 * np.abs(p[:, None] - mass),
        }[divergence if _named(divergence) else ""]()
        price = np.diff(cost, axis=1)
    cheapest = np.argsort(price, axis=None, kind="stable")[:units]
    return np.bincount(cheapest // units, minlength=len(p)) / units


def float32_normal_bits():
    """Entropy, in bits, of one standard normal number rounded to float32: h(N(0, 1)) - E log2 spacing.

    The spacing of float32 at x is 2^(floor(log2 |x|) - 23). The paper's constant is 26.55.
    """
    k = np.arange(-149, 8)
    share = 2 * (norm.cdf(2.0 ** (k + 1)) - norm.cdf(2.0**k))
    return 0.5 * math.log2(2 * math.pi * math.e) + 23 - float(np.sum(k * share))
