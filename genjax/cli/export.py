"""Writes the sampler of a trained model as one file that needs nothing but JAX to run.

  genjax export --workdir=runs/digits --out=digits.jaxexport

The file holds the program and the averaged weights, for any number of samples, on CPU, CUDA and TPU:

  import jax, pathlib
  sampler = jax.export.deserialize(bytearray(pathlib.Path("digits.jaxexport").read_bytes()))
  x = sampler.call(jax.random.key(0), jax.numpy.arange(16), jax.numpy.full(16, 3))

Its arguments are a key, the numbers of the samples (sample i depends on the key, i and its label alone) and,
where the model is conditional, their labels (-1 for none), both int32. --solver, --grid, --steps and --cfg-scale
are short for --config.sample.KEY=VALUE.
"""

from genjax.cli import sampling

OVERRIDES = True
PLATFORMS = ("cpu", "cuda", "tpu")


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="directory that `genjax train` wrote")
    parser.add_argument("--out", required=True, help="FILE.jaxexport")
    parser.add_argument("--platforms", default=",".join(PLATFORMS), help="of cpu, cuda, rocm, tpu (cpu,cuda,tpu)")
    sampling.add_arguments(parser)


def exported(algorithm, state, conditional, platforms=PLATFORMS):
    """The `jax.export.Exported` of an Algorithm's sampler, with a symbolic number of samples.

    Called as (key, number [b], label [b]) where `conditional`, else (key, number [b]).
    """
    import jax
    from jax import export

    def sample(key, number, label=None):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, number)
        cond = None if label is None else {"label": label}
        return algorithm.sample(keys, state, number.shape[0], cond)

    (b,) = export.symbolic_shape("b")
    key = jax.eval_shape(lambda: jax.random.key(0))
    rows = jax.ShapeDtypeStruct((b,), "int32")
    return export.export(jax.jit(sample), platforms=platforms)(key, rows, *((rows,) if conditional else ()))


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import runtime

    config = runtime.stored_config(args.workdir)
    path = runtime.check_output(args.out, ".jaxexport")
    platforms = tuple(name.strip() for name in args.platforms.split(","))
    for name in platforms:
        if name not in ("cpu", "cuda", "rocm", "tpu"):
            raise ValueError(f"--platforms: expected names of cpu, cuda, rocm and tpu, got {name!r}")
    sampling.apply(config, args)
    runtime.use_cache()
    from genjax import build
    from genjax.train.workdir import atomic_path

    model = runtime.restore(config, args.workdir)
    artifact = exported(model.parts.algorithm, model.state, build.is_conditional(config), platforms)
    with atomic_path(path) as temporary:
        temporary.write_bytes(artifact.serialize())
    print(f"sampler of step {model.step} for {', '.join(platforms)}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
