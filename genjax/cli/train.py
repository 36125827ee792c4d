"""Trains a model by its config, and goes on where an earlier run of the same workdir stopped.

  genjax train --config=diffusion/edm_digits --workdir=runs/digits
  genjax train --config=diffusion/edm_digits --workdir=runs/wide --config.network.dim=192
  genjax train --config=diffusion/edm_digits --workdir=runs/split --config.mesh="{'data': -1, 'fsdp': 8}"

Any value of the config is overridden by --config.KEY=VALUE. A training runs on all devices; where it spans
several machines, start it on each with --distributed, or with an address and numbers (docs/scaling.md).

Exit codes: 0, all steps are done; 75, a signal ended it: what was trained is saved, run again to go on; 1, the numbers
diverged; 2, an error; 70, another process of the training was lost.
"""

import sys

OVERRIDES = True
UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: schedulers and makefiles must not take it for the end


def add_arguments(parser):
    parser.add_argument(
        "--config", help="name (diffusion/edm_digits) or path of a config file, :SCALE appended at will"
    )
    parser.add_argument("--workdir", required=True, help="directory of the run; made where missing")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--distributed", action="store_true", help="join the processes that JAX detects")
    parser.add_argument("--coordinator", help="host:port of process 0, where JAX detects nothing")
    parser.add_argument("--processes", type=int, help="number of processes")
    parser.add_argument("--process-id", type=int, help="index of this process")


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import config as configs
    from genjax.cli import runtime

    numbers = (args.coordinator, args.processes, args.process_id)
    if args.distributed or any(value is not None for value in numbers):
        from genjax.train.multihost import initialize

        initialize(*numbers)
    config = configs.load(args.config) if args.config else runtime.stored_config(args.workdir)
    configs.apply(config, args.overrides)
    runtime.use_cache()

    from genjax import build
    from genjax.train import loop, multihost

    plan, seed = build.plan(config), build.seed(config)
    build.check_groups(config)
    layout = build.layout(config)
    loop.check_plan(plan, layout.parts)
    data = build.dataset(config)
    parts = build.parts(config, data.spec)
    build.evaluation(config)
    hooks = build.hooks(config, parts, data, args.workdir)
    stream = None if args.quiet else sys.stderr
    axes = ", ".join(f"{name} {size}" for name, size in layout.mesh.shape.items() if size > 1)
    say = print if multihost.is_main() else lambda line: None
    devices = layout.mesh.devices.ravel()
    say(f"seed {seed}; {len(devices)} device(s) of kind {devices[0].device_kind}{axes and f' ({axes})'}")
    feed, recipe, workdir = build.feed(config, data, layout), parts.algorithm, args.workdir
    options = {"seed": seed, "hooks": hooks, "layout": layout, "stream": stream, "table": build.table(config)}
    with multihost.watched(workdir, lambda error: 1 if isinstance(error, loop.Diverged) else 2):
        _, step = loop.train(recipe, feed, plan, workdir, config.to_dict(), **options)
    if step < plan.steps:
        return UNFINISHED
    if multihost.is_main():
        print(f"trained {step} steps; {args.workdir} holds the checkpoints and metrics.jsonl")
    return 0
