"""Measures a trained model: a table, and metrics.json in the workdir.

  genjax evaluate --workdir=runs/digits
  genjax evaluate --workdir=runs/digits --metrics=fd,accuracy --num=5000

Settings of the groups eval and sample are overridden by --config.eval.KEY=VALUE and --config.sample.KEY=VALUE;
--solver, --grid, --steps and --cfg-scale are short for the latter, as in `genjax sample`.
"""

from genjax.cli import sampling

OVERRIDES = True


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="directory that `genjax train` wrote")
    parser.add_argument(
        "--metrics", help="names, comma-separated; by default those of the config, or what suits the data"
    )
    parser.add_argument("--num", type=int, help="number of samples")
    sampling.add_arguments(parser)
    parser.add_argument("--mesh", help="split model and samples over devices, such as data=-1,fsdp=8 (one device)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (0)")
    parser.add_argument("--out", help="file of the figures (WORKDIR/metrics.json)")
    parser.add_argument("--curve", help="also draw the loss curve to FILE.png")


def run(args):
    """Runs the command. Returns the exit code."""
    from pathlib import Path

    from genjax.cli import runtime

    config = runtime.stored_config(args.workdir)
    sampling.apply(config, args, ("eval", "sample"))
    out = runtime.check_output(args.out or Path(args.workdir) / "metrics.json", ".json")
    curve = args.curve and runtime.check_output(args.curve, ".png")
    runtime.use_cache()
    from genjax import build
    from genjax.train import checkpoints, evaluation, logs, pictures
    from genjax.train.workdir import write_json

    settings = build.evaluation(config)
    names = tuple(n.strip() for n in args.metrics.split(",")) if args.metrics else settings.metrics
    evaluation.check_metrics(names)
    num = settings.num if args.num is None else args.num
    if num < 2:
        raise ValueError(f"--num: expected at least 2, got {num}")
    model = runtime.restore(config, args.workdir, mesh=args.mesh)
    subject = build.subject(config, model.parts, model.state, model.data, num=num, seed=args.seed)
    names = names or build.metrics(config, model.parts, model.data.spec)
    figures = evaluation.evaluate(subject, names)
    width = max(map(len, figures))
    print(
        f"step {model.step}, {num} samples, seed {args.seed}, sampler {config.get('sample', {})!s}".replace("\n", " ")
    )
    for name, value in figures.items():
        print(f"  {name:{width}}  {value:.4f}")
    record = {"metrics": figures, "step": model.step, "num": num, "seed": args.seed}
    record["sample"] = build.plain(config.get("sample"))
    record["versions"] = checkpoints.versions()
    write_json(out, record)
    if curve:
        pictures.loss_curve(logs.read_metrics(Path(args.workdir) / "metrics.jsonl"), curve)
    return 0
