"""How a trained model is sampled, said on the command line: one dialect for sample, evaluate and export.

`--steps=12` and `--config.sample.steps=12` are two spellings of one thing, and so for the other options here; what
has no option of its own (`--config.sample.clip=true`) has the long spelling alone.
"""

OPTIONS = ("solver", "grid", "steps", "cfg_scale")  # each a key of config.sample


def add_arguments(parser):
    parser.add_argument("--solver", help="a solver (heun) or a popular sampler (DPM++ 2M Karras)")
    parser.add_argument("--grid", help="time grid of the solver (karras)")
    parser.add_argument("--steps", type=int, help="steps of the solver")
    parser.add_argument("--cfg-scale", type=float, help="classifier-free guidance; 1 for none")


def apply(config, args, groups=("sample",)):
    """Sets what the options and --config.KEY=VALUE say. A solver named without a grid drops the config's grid.

    Args:
      config: of a trained model.
      args: with `OPTIONS` and `overrides`.
      groups: what may be changed of a trained model.

    Raises:
      ValueError: a key of another group, one said in both spellings, or a wrong value.
    """
    from ml_collections import ConfigDict

    from genjax.cli import config as configs

    said = {f"sample.{name}": getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    fields = [field for field, _ in args.overrides]
    for field in fields:
        if field.split(".")[0] not in groups:
            raise ValueError(f"--config.{field}: only {' and '.join(groups)} can be changed of a trained model")
        if field in said:
            option = field.removeprefix("sample.").replace("_", "-")
            raise ValueError(f"--{option}: expected this or --config.{field}, got both")
    with config.unlocked():
        if config.get("sample") is None:
            config.sample = ConfigDict()
        new = config.sample.to_dict()
        if "sample.solver" in said or "sample.solver" in fields:
            new.pop("solver", None)  # whether it was a name or a group
            new.pop("grid", None)  # a popular sampler says its own
        new.update({field.removeprefix("sample."): value for field, value in said.items()})
        del config.sample
        config.sample = ConfigDict(new)
    configs.apply(config, args.overrides)
