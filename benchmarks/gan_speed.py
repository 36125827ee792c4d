"""Train steps of R3GAN and StyleGAN2 beside plain PyTorch, with the same weights.

  python -m benchmarks.gan_speed [--only r3gan stylegan2] [--turns 3] [--threads 1]

R3GAN (2501.05441): relativistic pairing with R1 and R2 in every update. StyleGAN2 (1912.04958): the non-saturating
loss, R1 of the critic in every 16th update, path lengths of the generator in every 4th; the steps with and
without them are timed apart and "a step" is their mean over 16. Both sides take both players' updates with Adam, and
average the generator's weights; here it is the program that `train.loop` dispatches. First both take one step with
the same latents and must find the same losses and gradients, penalties included.

R3GAN at 32 pixels with one block a level in the place of two and a third of its width, StyleGAN2 at 16 pixels with
half of its width, so that compiling and a step take seconds on one core. Style mixing is off on both sides and the
layers' noise fixed, so that both compute the same numbers. On the reading of the times, and what is kept, see
`torch_networks`.
"""

import argparse
import importlib.util
import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.torch_networks import check, differences, gap, keep_to, measured, medians, page
from benchmarks.train_step import take_turns
from genjax.algorithms import games, parts
from genjax.algorithms.gan import gan
from genjax.core.keys import fold, normal_like
from genjax.losses.adversarial import ADVERSARIAL
from genjax.losses.penalties import Penalty, path_length, r1, r1_r2
from genjax.networks import linen_net
from genjax.networks.gan import r3gan, stylegan2, stylegan2_discriminator
from genjax.train.ema import half_life
from genjax.train.loop import data_mesh, make_dispatch

KEPT = pathlib.Path(__file__).parent / "results" / "gan_speed.json"
GOAL, HALF_LIFE, RAMP_UP = 1.0, 500.0, 0.05
R1_EVERY, PATH_EVERY, PATH_DECAY = 16, 4, 0.01


class Game(NamedTuple):
    """Networks and what they are trained with."""

    name: str  # "r3gan" or "stylegan2"
    generator: dict  # fields
    discriminator: dict
    dim: int  # of the latent
    weight: float  # of the critic's penalty
    path_weight: float
    rate: float
    beta2: float
    batch: int
    steps: dict  # number of a step -> (what it is, how many there are in 16)


R3 = {"widths": (256,), "groups": (32,), "blocks": 1}
STYLE = {"channels": 4096, "width": 256}
GAMES = {
    "r3gan": Game("r3gan", {"shape": (32, 32, 3), **R3}, R3, 64, 0.1, 0.0, 2e-4, 0.9, 4, {1: ("step", 16)}),
    "stylegan2": Game(
        "stylegan2",
        {"shape": (16, 16, 3), **STYLE, "noise": "constant", "mixing": 0.0},
        STYLE,
        512,
        0.1,
        2.0,
        2e-3,
        0.99,
        4,
        {1: ("neither penalty", 12), 4: ("path lengths", 3), 0: ("path lengths and R1", 1)},
    ),
}


def modules(game):
    """(generator, discriminator)."""
    if game.name == "r3gan":
        return r3gan.R3Generator(**game.generator), r3gan.R3Discriminator(**game.discriminator)
    made = stylegan2.StyleGAN2Generator(**game.generator)
    return made, stylegan2_discriminator.StyleGAN2Discriminator(**game.discriminator)


def algorithm(game):
    """The toolkit's recipe."""
    generator, discriminator = (linen_net(m) for m in modules(game))
    style = game.name == "stylegan2"
    penalties = {"r1": Penalty(r1(), game.weight, R1_EVERY)} if style else {"r1_r2": Penalty(r1_r2(), game.weight)}
    lengths = {"path_length": Penalty(path_length("style", PATH_DECAY), game.path_weight, PATH_EVERY)}
    return gan(
        generator,
        discriminator,
        ADVERSARIAL["non_saturating" if style else "relativistic_pairing"](),
        optax.adam(game.rate, 0.0, game.beta2),
        optax.adam(game.rate, 0.0, game.beta2),
        latent=games.normal(game.dim),
        penalties=penalties,
        g_penalties=lengths if style else {},
        ema=half_life(HALF_LIFE, RAMP_UP),
    )


def weights(game, seed=0):
    """{"generator", "discriminator"}: random parameters, none zero, of the size that the networks start with."""
    rng, nets = np.random.default_rng(seed), [linen_net(m) for m in modules(game)]
    inputs = jnp.zeros((game.batch, game.dim)), jnp.zeros((game.batch, *game.generator["shape"]))

    def one(path, p):
        names = [k.key for k in path]
        values = rng.normal(size=p.shape)
        slow = 100 if "mapping" in names else 1  # of a hundredth of the learning rate
        if names[-1] in ("kernel", "constant", "basis"):
            equalized = game.name == "stylegan2" or names[-1] == "basis"
            values = slow * values if equalized else values / np.sqrt(np.prod(p.shape[:-1]))
        else:
            values = slow * 0.1 * values + ("style" in names)
        return jnp.asarray(values, jnp.float32)

    found = [jax.eval_shape(n.init, jax.random.key(0), x)[0] for n, x in zip(nets, inputs)]
    found = [jax.tree_util.tree_map_with_path(one, shapes) for shapes in found]
    if game.name == "r3gan":  # its last maps are normal(1 / size)
        found[1]["basis"] = found[1]["basis"] / 4
    return dict(zip(("generator", "discriminator"), found))


def examples(game):
    rng = np.random.default_rng(1)
    return {"x": jnp.asarray(0.5 * rng.normal(size=(game.batch, *game.generator["shape"])), jnp.float32)}


def dispatched(game, params, key):
    """call(number) -> metrics of the train step of this number, the state carried on in the list `call.state`."""
    recipe, batch = algorithm(game), examples(game)
    state = jax.jit(lambda params: recipe.init(jax.random.key(0), batch, params))(params)
    program = make_dispatch(recipe.step, data_mesh(jax.local_devices()[:1]))
    indices, carry = jnp.arange(game.batch)[None], [state]
    compiled = program.lower(key, state, batch, indices, 1).compile()

    def call(number):
        carry[0] = carry[0]._replace(step=jnp.full((), number, jnp.int32))
        carry[0], metrics = compiled(key, carry[0], batch, indices, 1)
        return jax.block_until_ready(metrics)

    call.state = carry
    return call


def drawn(game, key, number):
    """What the dispatched step of this number draws: {"critic", "generator"} latents, and y of the path lengths."""
    key = jax.random.fold_in(key, number)
    places = [parts.draws(jax.random.fold_in(key, i), number, game.batch) for i in (0, 1)]
    latent = [np.asarray(games.normal(game.dim).sample(fold(d.keys, 0), game.batch)) for d in places]
    x = jnp.zeros((game.batch, *game.generator["shape"]))
    y = np.asarray(normal_like(fold(fold(places[1].keys, 6), 0), x)) / np.sqrt(x.shape[1] * x.shape[2])
    return {"critic": latent[0], "generator": latent[1], "y": y}


def torch_step(game, params):
    """step(number, drawn=None) -> metrics, the same step in PyTorch; its attribute `players` holds, for each, the
    tree of tensors and the optimizer."""
    import torch
    import torch.nn.functional as F

    from benchmarks import torch_gans as twins
    from benchmarks.torch_twins import carried, image

    trees = {name: jax.tree.map(lambda p: p.requires_grad_(), carried(tree)) for name, tree in params.items()}
    leaves = {name: jax.tree.leaves(tree) for name, tree in trees.items()}
    adam = lambda ps: torch.optim.Adam(ps, lr=game.rate, betas=(0.0, game.beta2), fused=True)
    optimizers = {name: adam(ps) for name, ps in leaves.items()}
    average = [p.detach().clone() for p in leaves["generator"]]
    x, fields, state = image(examples(game)["x"]), game.generator, {"count": 0, "length": torch.zeros(())}
    style = game.name == "stylegan2"
    g, d = trees["generator"], trees["discriminator"]
    if style:
        noise = twins.constant_noise(fields)
        ws = lambda z: twins.styles(g, z, len(noise) + 1)
        make = lambda z: twins.synthesis(g["synthesis"], ws(z), noise)
        see = lambda x: twins.style_discriminator(d, x, fields)
    else:
        make = lambda z: twins.r3_generator(g, z, fields)
        see = lambda x: twins.r3_discriminator(d, x, fields)

    def slope(logits, x):
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return 0.5 * gradient.square().sum((1, 2, 3)).mean()

    def critic(number, z):
        for p in leaves["discriminator"]:
            p.requires_grad_(True)
        optimizers["discriminator"].zero_grad(set_to_none=True)
        with torch.no_grad():
            fake = make(z)
        if style:
            loss = F.softplus(-see(x)).mean() + F.softplus(see(fake)).mean()
            loss.backward()
            if number % R1_EVERY == 0:
                real = x.detach().requires_grad_()
                (game.weight * R1_EVERY * slope(see(real), real)).backward()
        else:
            real, fake = x.detach().requires_grad_(), fake.requires_grad_()
            r, f = see(real), see(fake)
            loss = F.softplus(f - r).mean()
            (loss + game.weight * (slope(r, real) + slope(f, fake))).backward()
        optimizers["discriminator"].step()
        return loss.item()

    def generator(number, z, y):
        for p in leaves["discriminator"]:
            p.requires_grad_(False)
        optimizers["generator"].zero_grad(set_to_none=True)
        f = see(make(z))
        loss = F.softplus(-f if style else see(x) - f).mean()
        loss.backward()
        if style and number % PATH_EVERY == 0:
            w = ws(z)
            made = twins.synthesis(g["synthesis"], w, noise)
            (gradient,) = torch.autograd.grad((made * y).sum(), w, create_graph=True)
            length = (gradient.square().sum(2).mean(1) + 1e-12).sqrt()
            state["length"] = state["length"] + PATH_DECAY * (length.mean().detach() - state["length"])
            (game.path_weight * PATH_EVERY * (length - state["length"]).square().mean()).backward()
        optimizers["generator"].step()
        return loss.item()

    def step(number, drawn=None):
        given = drawn is not None
        latent = lambda name: torch.tensor(drawn[name]) if given else torch.randn(game.batch, game.dim)
        y = image(drawn["y"]) if given else torch.randn_like(x) / (x.shape[2] * x.shape[3]) ** 0.5
        found = {"d_loss": critic(number, latent("critic")), "g_loss": generator(number, latent("generator"), y)}
        state["count"] += 1
        keep = 0.5 ** (1 / min(HALF_LIFE, RAMP_UP * state["count"]))
        with torch.no_grad():
            torch._foreach_lerp_(average, leaves["generator"], 1 - keep)
        return found

    step.players = {name: (leaves[name], optimizers[name]) for name in trees}
    return step


def agreement(game, ours, theirs, key, number=0):
    """Relative differences of losses and of both gradients, penalties in them, after each side's first step."""
    from benchmarks.torch_twins import carried

    mine, others = ours(number), theirs(number, drawn(game, key, number))
    found = {name: abs(float(mine[name]) / others[name] - 1) for name in ("d_loss", "g_loss")}
    for name, (leaves, optimizer) in theirs.players.items():
        # Adam's first moments are the last gradient, as b1 = 0
        (adam,) = [s for s in ours.state[0].opt[name] if hasattr(s, "mu")]
        moments = [optimizer.state[p]["exp_avg"].numpy() for p in leaves]
        found[f"gradient of the {name}"] = gap([a.numpy() for a in jax.tree.leaves(carried(adam.mu))], moments)
    return found


def compare(name, turns):
    """What is measured of a game: {"batch", "agree": {...}, "times": {what: `medians`}, "means": {side: s a step}}."""
    game, key = GAMES[name], jax.random.key(1)
    params = weights(game)
    ours = dispatched(game, params, key)
    theirs = torch_step(game, params)
    found = agreement(game, ours, theirs, key)
    check(name, found)
    times, means = {}, {}
    for number, (what, share) in game.steps.items():
        calls = {"toolkit": lambda n=number: ours(n), "PyTorch": lambda n=number: theirs(n)}
        times[what] = medians(take_turns(calls, 0, turns, 0))
        for who in calls:
            means[who] = means.get(who, 0.0) + share / 16 * times[what][who]
    return {"batch": game.batch, "agree": found, "times": times, "means": means}


def report(results, threads):
    """Table, remarks and goals as Markdown."""
    remarks, goals = [], []
    for name, found in results.items():
        rate = {who: found["batch"] / mean for who, mean in found["means"].items()}
        remarks.append(
            f"- {name}: {rate['toolkit']:.2f} images a second of CPU here, {rate['PyTorch']:.2f} in PyTorch; "
            f"{differences(found)}."
        )
        ratio = found["means"]["toolkit"] / found["means"]["PyTorch"]
        goals.append(f"- {name}, a step, CPU time over PyTorch's: {ratio:.3f} (goal: at most {GOAL})")
    return page(results, threads, remarks, goals)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(GAMES), help="measured again; else what is not kept yet")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("# GAN steps beside PyTorch\n")
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: what was kept is printed.\n")
        print(report(json.loads(KEPT.read_text()), options.threads))
        return
    keep_to(options.threads)
    print(report(measured(KEPT, GAMES, options.only, lambda name: compare(name, options.turns)), options.threads))


if __name__ == "__main__":
    main()
