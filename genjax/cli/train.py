"""Trains a model by its config, and goes on where an earlier run of the same workdir stopped.

  genjax train --config=diffusion/edm_digits --workdir=runs/digits
  genjax train --config=diffusion/edm_digits --workdir=runs/wide --config.network.channels=64

Any value of the config is overridden by --config.KEY=VALUE.
"""

import sys

OVERRIDES = True


def add_arguments(parser):
    parser.add_argument(
        "--config", help="name (diffusion/edm_digits) or path of a config file, :SCALE appended at will"
    )
    parser.add_argument("--workdir", required=True, help="directory of the run; made where missing")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import config as configs
    from genjax.cli import runtime

    config = configs.load(args.config) if args.config else runtime.stored_config(args.workdir)
    for field, text in args.overrides:
        configs.override(config, field, text)
    runtime.use_cache()
    from genjax import build
    from genjax.train import loop

    plan, seed = build.plan(config), build.seed(config)
    build.check_groups(config)
    mesh = loop.data_mesh()
    loop.check_plan(plan, mesh.shape["data"])
    data = build.dataset(config)
    parts = build.parts(config, data.spec)
    build.evaluation(config)
    hooks = build.hooks(config, parts, data, args.workdir)
    stream = None if args.quiet else sys.stderr
    print(f"seed {seed}; {len(mesh.devices.ravel())} device(s) of kind {mesh.devices.ravel()[0].device_kind}")
    feed = build.feed(config, data)
    _, step = loop.train(
        parts.algorithm, feed, plan, args.workdir, config.to_dict(), seed=seed, hooks=hooks, mesh=mesh, stream=stream
    )
    if step == plan.steps:
        print(f"trained {step} steps; {args.workdir} holds the checkpoints and metrics.jsonl")
    return 0
