"""Noise Dimension of GAN: An Image Compression Perspective (arXiv 2403.09196).

    genjax reproduce gan_noise_dimension

A deterministic generator puts out no more entropy than its noise has; R bits of noise leave at least the
divergence D(R). Rules fixed before the runs:

A. `zipf` (1 / k on 64 symbols, H = 4.864 bits) and `dirichlet` (64 symbols, another law each seed): D(R) at
   R = 0, 0.5, 1, ... (to 5 at most) and H by the convex-concave procedure, for KL(q || p) and total variation.
   Pass, every seed and law: `closed_form`: at 0 < R < H the KL is within 2 % or 0.01 bits of the tempered law's,
   which is known to be the best; `curve`: it never rises and is below 1e-6 at H; `unbeaten`: none of 10,000 other
   laws with H(q) <= R (random ones of all entropies, random powers of p, truncations) is below D(R) by more than
   1e-6; `truncation`: the k most likely symbols, k as large as R allows, are worse in KL at every 0 < R < H - 0.1,
   by at least 5 % for Zipf's law and 0.1 % for the others (whose two largest atoms may be nearly equal: a pilot had
   0.7 % at R = 1), and neither they nor the tempered law are better in total variation.
   `fixed_length`: b fair bits make multiples of 2^-b only. The best such law is no better than D(b), and within
   0.01 of D(b) at b = 12 for both divergences.
   `constant`: the entropy of a float32 normal number, by the density of float32 numbers, is within 0.5 % of 26.55.
B. `gan_b`: RpGAN + R1 + R2, generator's input b fair bits as -1 and 1, data 64 equal modes (8 x 8, std 0.02),
   2,500 steps, 4,000 samples, each counted at its nearest mode. At most 2^b modes can be hit, so
   TV >= 1 - 2^b / 64 and KL(q || uniform) >= (6 - b) ln 2. Pass: `bits`: at most 2^b modes, every b and seed;
   `saturated`: at b = 2 and 4 TV and KL (means over seeds) within 5 % of the bounds; `enough`: TV at most 0.35 at
   b = 6 and 8, and KL at 8 not above that at 6. `control`: the same game on two normal numbers hits more than 2^2
   modes with every seed, so that it is the bits that bind.

The divergences that the paper itself plots, and its CIFAR-10 and LSUN runs, are not repeated here.
"""

import numpy as np

from genjax.cli import runner_gan as run
from genjax.core.keys import fold
from genjax.data.toys import oracle
from genjax.metrics.modes import histogram_kl, nearest_mode, total_variation
from genjax.oracles import entropy as laws

PAPER = {
    "number": 35,
    "title": "Noise Dimension of GAN: An Image Compression Perspective",
    "year": 2024,
    "arxiv": "2403.09196",
    "family": "theory",
    "kind": "theory",
}
PRIORS = ()
SEEDS = 3
SYMBOLS = 64
SIDE = 8
KINDS = ("reverse_kl", "tv")
NOISE_BITS = (5, 6, 8, 10, 12)  # of the best law of fixed length; below H(p) no law is exact anyway


def get_config(scale="small"):
    config = run.toy_config(
        scale,
        2500,
        width=128,
        depth=2,
        batch_size=256,
        data={"name": "grid", "side": SIDE, "spacing": 1.0, "std": 0.02},
        latent={"name": "bits", "dim": 8},
        loss={"name": "relativistic_pairing"},
        penalties={"r1_r2": {"weight": 0.02}},
    )
    config.law = ""  # of the part "curve"
    return config


VARIANTS = {
    "zipf": {"part": "curve", "law": "zipf"},
    "dirichlet": {"part": "curve", "law": "dirichlet"},
    **{f"gan_{b}": {"part": "gan", "latent": {"name": "bits", "dim": b}} for b in (2, 4, 6, 8)},
    "gan_normal": {"part": "gan", "latent": {"name": "normal", "dim": 2}},
}


def game_config(config):
    return type(config)({k: v for k, v in config.items() if k != "law"})


def train(config, key, priors):
    return run.fit(game_config(config), key)[-1][1] if config.part == "gan" else {}


def other_laws(rng, p, count):
    """Laws [count, K] of every kind: Dirichlet of all concentrations, noisy powers of p, truncations of p."""
    k = len(p)
    concentration = 10 ** rng.uniform(-2, 1, (count // 2, 1))
    spread = rng.gamma(concentration, size=(count // 2, k)) + 1e-300
    power, noise = rng.uniform(0, 8, (count - count // 2, 1)), rng.uniform(0, 1, (count - count // 2, 1))
    tilt = power * np.log(p)[None] + noise * rng.standard_normal((count - count // 2, k))
    near = np.exp(tilt - tilt.max(axis=1, keepdims=True))
    cut = np.tril(np.ones((k, k)))[:, np.argsort(np.argsort(-p))] * p[None]
    every = np.concatenate([spread, near, cut])
    return every / every.sum(axis=1, keepdims=True)


def measure_curve(config, key):
    """Both divergence-entropy curves of one law, and what they are compared with."""
    rng = np.random.default_rng(run.seed_of(fold(key, 0)))
    small = config.scale == "small"
    symbols = SYMBOLS if small else 8
    p = 1 / np.arange(1, symbols + 1) if config.law == "zipf" else rng.dirichlet(np.ones(symbols))
    p = p / p.sum()
    h = float(laws.entropy(p))
    bits = [0.0, *np.arange(0.5, min(h - 1e-6, 5.25), 0.5), h]  # the same for every seed
    others = other_laws(rng, p, 10000 if small else 100)
    allowed = laws.entropy(others)[None] <= np.array(bits)[:, None]
    inside = [(i, r) for i, r in enumerate(bits) if 0 < r < h - 1e-9]
    metrics = {"entropy": h, "float32_normal_bits": laws.float32_normal_bits()}
    for name in KINDS:
        value = lambda q, name=name: laws.DIVERGENCES[name](p, q)
        curve = laws.divergence_entropy_curve(p, bits, name, restarts=4, seed=run.seed_of(fold(key, 1)))
        values = value(others)
        sampled = np.array([values[row].min(initial=np.inf) for row in allowed])
        cut = np.array([value(laws.truncated(p, r)) for _, r in inside])
        tempered = np.array([value(laws.tempered(p, r)) for _, r in inside])
        found = np.array([curve[i] for i, _ in inside])
        middle = np.array([r for _, r in inside]) < h - 0.1
        fixed = {b: float(value(laws.quantized(p, b, name))) for b in NOISE_BITS}
        floor = laws.divergence_entropy_curve(p, [min(b, h) for b in NOISE_BITS], name)
        metrics |= {
            f"{name}_closed_form_gap": np.max((found - tempered) - np.maximum(0.02 * tempered, 0.01)),
            f"{name}_largest_gap": np.max(np.abs(found - tempered)),
            f"{name}_rise": np.max(np.diff(curve)),
            f"{name}_at_entropy": curve[-1],
            f"{name}_beaten_by": np.max(curve - sampled),
            f"{name}_truncation_ratio": np.min(cut[middle] / found[middle]),
            f"{name}_over_best_rule": np.max(found - np.minimum(cut, tempered)),
            f"{name}_fixed_length_below": max(d - fixed[b] for b, d in zip(NOISE_BITS, floor)),
            f"{name}_fixed_length_extra": fixed[NOISE_BITS[-1]] - floor[-1],
            **{f"{name}_fixed_{b}": v for b, v in fixed.items()},
            **{f"{name}_d_{r:.1f}": d for r, d in zip(bits[:-1], curve)},
            **{f"{name}_truncated_{r:.1f}": d for (_, r), d in zip(inside, cut)},
        }
    return metrics


def measure_gan(config, key, state):
    """How a game's samples are spread over the modes."""
    config = game_config(config)
    x = run.draw(config, state, fold(key, 3), config.eval.num)
    means = np.asarray(oracle("grid", side=SIDE, spacing=1.0, std=0.02).means)
    index, distance = nearest_mode(x, means)
    counts = np.bincount(index, minlength=SIDE * SIDE)
    bits = config.latent.dim
    return {
        "modes": np.sum(counts > 0),
        "tv": total_variation(counts, np.ones(SIDE * SIDE)),
        "kl": histogram_kl(counts),
        "tv_bound": max(0.0, 1 - 2**bits / SIDE**2),
        "kl_bound": max(0.0, np.log(SIDE**2) - bits * np.log(2)),
        "entropy": laws.entropy(counts),
        "near": np.mean(distance <= 0.1),
        "points": len(np.unique(np.round(np.asarray(x, np.float64), 3), axis=0)),
    }


def measure(config, key, priors):
    if config.part == "curve":
        return measure_curve(config, key)
    return measure_gan(config, key, priors["gan_noise_dimension"])


CURVES = ("zipf", "dirichlet")


def _all(table, metric, holds, kinds=KINDS):
    return bool(all(holds(table[law][f"{kind}_{metric}"]).all() for law in CURVES for kind in kinds))


def _saturated(table, b):
    return all(
        abs(table[f"gan_{b}"][m].mean() / table[f"gan_{b}"][f"{m}_bound"].mean() - 1) <= 0.05 for m in ("tv", "kl")
    )


CLAIMS = {
    "closed_form": (
        "the procedure's KL(q || p) is within 2 % or 0.01 bits of the tempered law's at every R",
        lambda t: _all(t, "closed_form_gap", lambda v: v <= 0, ("reverse_kl",)),
    ),
    "curve": (
        "D(R) never rises and is below 1e-6 at R = H(p), for KL and total variation",
        lambda t: _all(t, "rise", lambda v: v <= 0) and _all(t, "at_entropy", lambda v: v < 1e-6),
    ),
    "unbeaten": (
        "none of 10,000 laws of entropy at most R is nearer to p than D(R)",
        lambda t: _all(t, "beaten_by", lambda v: v <= 1e-6),
    ),
    "truncation": (
        "keeping the most likely symbols is worse in KL, 5 % on Zipf's law; in total variation no rule is better",
        lambda t: (
            _all(t, "truncation_ratio", lambda v: v >= 1.001, ("reverse_kl",))
            and bool((t["zipf"]["reverse_kl_truncation_ratio"] >= 1.05).all())
            and _all(t, "over_best_rule", lambda v: v <= 1e-9, ("tv",))
        ),
    ),
    "fixed_length": (
        "laws of b fair bits are no better than D(b), and within 0.01 of it at b = 12",
        lambda t: (
            _all(t, "fixed_length_below", lambda v: v <= 1e-6) and _all(t, "fixed_length_extra", lambda v: v <= 0.01)
        ),
    ),
    "constant": (
        "a float32 normal number has 26.55 bits to 0.5 %",
        lambda t: bool((abs(t["zipf"]["float32_normal_bits"] / 26.55 - 1) <= 0.005).all()),
    ),
    "bits": (
        "a game on b bits hits at most 2^b modes, every b and seed",
        lambda t: bool(all((t[f"gan_{b}"]["modes"] <= 2**b).all() for b in (2, 4, 6, 8))),
    ),
    "saturated": (
        "at b = 2 and 4 total variation and KL are within 5 % of the bounds",
        lambda t: _saturated(t, 2) and _saturated(t, 4),
    ),
    "enough": (
        "at b = 6 and 8 total variation is at most 0.35, and the KL at 8 is not above that at 6",
        lambda t: bool(
            t["gan_6"]["tv"].mean() <= 0.35
            and t["gan_8"]["tv"].mean() <= 0.35
            and t["gan_8"]["kl"].mean() <= t["gan_6"]["kl"].mean()
        ),
    ),
    "control": (
        "on two normal numbers the same game hits more than 4 modes, every seed",
        lambda t: bool((t["gan_normal"]["modes"] > 4).all()),
    ),
}


def figure(table, path):
    """D(R) of the Zipf law with the rule of truncation; the games' divergence by bits with its bound."""
    from matplotlib.figure import Figure

    from genjax.cli.runner_report import save_figure

    picture = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = picture.subplots(1, 2)
    row = {name: values.mean() for name, values in table["zipf"].items()}
    for i, kind in enumerate(KINDS):
        for prefix, style, label in ((f"{kind}_d_", "-", "best"), (f"{kind}_truncated_", "--", "most likely symbols")):
            points = sorted((float(name[len(prefix) :]), v) for name, v in row.items() if name.startswith(prefix))
            left.plot(*zip(*points), style, color=f"C{i}", marker=".", label=f"{kind}, {label}")
    left.set(xlabel="entropy allowed, bits", ylabel="divergence (KL in bits)", title="Zipf's law on 64 symbols")
    left.legend(fontsize=7)
    bits = (2, 4, 6, 8)
    for i, (metric, label) in enumerate((("tv", "total variation"), ("kl", "KL, nats"))):
        right.plot(bits, [table[f"gan_{b}"][metric].mean() for b in bits], "o", color=f"C{i}", label=label)
        right.plot(bits, [table[f"gan_{b}"][f"{metric}_bound"].mean() for b in bits], color=f"C{i}", label="its bound")
    right.set(xlabel="bits of noise", title="games on 64 modes")
    right.legend(fontsize=7)
    save_figure(picture, path)
