"""From a config to generative latent optimization.

Its groups, beside those of every recipe (`build.common`):

  generator       {name, ...}   genjax.networks.gan.GENERATORS
  loss            {name, ...}   genjax.losses.pyramid.RECONSTRUCTIONS, "l2" by default
  code_optimizer  of the codes, in the place of `optimizer`
  algorithm       {name: "glo", num, dim, scale, train_codes}   genjax.algorithms.glo

The data must number their images: `data.indexed` = true.
"""

from typing import Any, NamedTuple

from genjax.algorithms.glo import decoder, fit_codes, glo
from genjax.build.common import Recipe, axis_name, ema, of_group, optimizer, precision
from genjax.construct import check_arguments, construct
from genjax.core.types import Algorithm
from genjax.losses.pyramid import RECONSTRUCTIONS
from genjax.networks import linen_net
from genjax.networks.gan import GENERATORS

CONDITIONS = ("num_classes", "embedding_dim", "label_dim")


class Parts(NamedTuple):
    """The pieces of the recipe."""

    generator: Any  # Net
    loss: Any  # (made, x) -> [B]
    ema: Any  # EMA or None
    scale: float  # of what the generator is given
    algorithm: Algorithm

    def decode(self, state):
        """`decode(z [B, dim], key=None) -> x` of a State."""
        return decoder(self.generator, state, self.scale, self.ema)

    def law(self, state):
        """The Gaussian of a State's codes, with `sample(keys, n)`."""
        return fit_codes(state.extra["codes"])


def parts(config, spec):
    """The Parts for data of `spec`.

    Raises:
      ValueError: anything in the config that is wrong, by field.
    """
    if "index" not in spec.fields:
        raise ValueError(f"data.indexed: expected true, as each image has its code, got fields {list(spec.fields)}")
    hidden = ("axis_name",)
    values = check_arguments(of_group(config, "algorithm", "name"), [glo], "algorithm", given=5, hidden=hidden)
    sizes = {"dtype": precision(config), "axis_name": axis_name(config)}
    if spec.range == (-1.0, 1.0):
        sizes["output"] = "tanh"
    fixed = {"shape": spec.shape}
    hidden = ("parent", "name", *CONDITIONS)
    module = construct(GENERATORS, config.generator, "generator", fixed=fixed, defaults=sizes, hidden=hidden)
    loss = construct(RECONSTRUCTIONS, config.get("loss", "l2"), "loss")
    codes = "code_optimizer" if config.get("code_optimizer") is not None else "optimizer"
    net, average = linen_net(module), ema(config)
    try:
        algorithm = glo(
            net, loss, optimizer(config), optimizer(config, codes), average, axis_name=axis_name(config), **values
        )
    except ValueError as error:
        raise ValueError(f"algorithm: {error}") from error
    return Parts(net, loss, average, values.get("scale", 1.0), algorithm)


RECIPE = Recipe(
    groups=("generator", "loss", "code_optimizer"),
    needed=("generator",),
    parts=parts,
    table=lambda config: ("loss", "code_norm"),
)
