"""Compiles a training for a TPU slice that is not here, and says what it takes of each chip.

  genjax compile --config=training/edm2:paper --topology=v5e:16x16 --mesh=data=-1,fsdp=16 --shape=64,64,4 --classes=1000
  genjax compile --config=diffusion/edm_digits --topology=v6e:2x4

The train step and the sampler are compiled by the TPU's compiler (the package libtpu) on this machine, without
a TPU. --shape and --classes stand for a data set that is not at hand. Any value of the config is overridden by
--config.KEY=VALUE.
"""

OVERRIDES = True
KINDS = 46  # width of the first column


def add_arguments(parser):
    parser.add_argument("--config", required=True, help="name or path of a config file, :SCALE appended at will")
    parser.add_argument("--topology", required=True, help="slice, such as v5e:16x16, v6e:2x4, v5p:4x4x4, v4:2x2x2")
    parser.add_argument("--mesh", help="axes, such as data=-1,fsdp=8; those of the config by default")
    parser.add_argument("--shape", help="shape of an example, such as 64,64,3, instead of reading the data set")
    parser.add_argument("--classes", type=int, default=0, help="classes of the data, with --shape (0)")
    parser.add_argument("--samples", type=int, help="samples that the sampler draws at once (4 a chip)")
    parser.add_argument(
        "--quick", action="store_true", help="compile in a quarter of the time; less exact figures (docs/scaling.md)"
    )
    parser.add_argument("--no-sampler", action="store_true", help="compile the train step alone")
    parser.add_argument("--out", help="also write the figures to FILE.json")


def parse_mesh(text):
    """{"data": -1, "fsdp": 8} from "data=-1,fsdp=8".

    Raises:
      ValueError: anything else.
    """
    axes = {}
    for part in text.split(","):
        name, equals, size = part.strip().partition("=")
        if not equals or not size.lstrip("-").isdigit() or name in axes:
            raise ValueError(f"--mesh: expected axes such as data=-1,fsdp=8, got {text!r}")
        axes[name] = int(size)
    return axes


def parse_shape(text, classes):
    """The DataSpec of --shape and --classes."""
    from genjax.data import DataSpec

    sizes = text.split(",")
    if not all(size.strip().isdigit() and int(size) for size in sizes):
        raise ValueError(f"--shape: expected sizes such as 64,64,3, got {text!r}")
    fields = ("x", "label") if classes else ("x",)
    return DataSpec(tuple(map(int, sizes)), classes, fields=fields)


def size(nbytes):
    """Bytes in words."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.2f} {unit}"
        nbytes /= 1000


def seconds(value):
    return f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def report(name, program, chip, loop=False):
    """The lines on one Program; with `loop` (a sampler) the traffic of a loop's body is known for one pass alone."""
    from genjax.train.plan_ahead import estimate

    lines = [f"{name}, a chip of {program.chips}"]
    add = lambda what, value: lines.append(f"  {what:{KINDS}} {value:>12}")
    for what, nbytes in program.memory.items():
        if nbytes:
            add(f"memory: {what}", size(nbytes))
    peak = program.memory["peak"]
    add("fits", f"{'yes' if program.fits else 'NO'}, {peak / chip.hbm:.0%} of {size(chip.hbm)}")
    add("operations (matrix products), all chips", f"{program.flops / 1e12:.3f} T")
    for kind, (runs, nbytes, sent) in program.collectives.items():
        add(f"{kind}: {runs} of together {size(nbytes)}", f"{size(sent)} sent")
    if not program.fits:
        return lines
    time = estimate(program, chip)
    add("time: compute", seconds(time.compute))
    if not loop:
        add("time: memory", seconds(time.memory))
    add("time: network", seconds(time.network))
    if not loop:
        add("time, all at once ... one after another", f"{seconds(time.least)} ... {seconds(time.most)}")
        add("utilization of the peak, at most ... at least", f"{_share(time, 'least')} ... {_share(time, 'most')}")
    return lines


def _share(time, which):
    whole = getattr(time, which)
    return f"{time.compute / whole:.0%}" if whole else "0%"


def record(program, chip):
    """The figures as JSON values."""
    from genjax.train.plan_ahead import estimate

    time = estimate(program, chip)
    return {
        "chips": program.chips,
        "memory": program.memory,
        "fits": program.fits,
        "operations": program.flops,
        "collectives": {kind: dict(zip(("runs", "bytes", "sent"), row)) for kind, row in program.collectives.items()},
        "seconds": {**time._asdict(), "least": time.least, "most": time.most},
    }


def hurry():
    """From here on the compiler spends its least effort on making programs fast."""
    import jax

    jax.config.update("jax_exec_time_optimization_effort", -1.0)


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import config as configs
    from genjax.cli import runtime
    from genjax.construct import settings

    config = configs.load(args.config)
    configs.apply(config, args.overrides)
    if args.samples is not None and args.samples < 1:
        raise ValueError(f"--samples: expected at least 1, got {args.samples}")
    out = args.out and runtime.check_output(args.out, ".json")
    axes = parse_mesh(args.mesh) if args.mesh else settings(config.get("mesh"), "mesh")
    spec = parse_shape(args.shape, args.classes) if args.shape else None
    from genjax.train import plan_ahead

    devices, chip = plan_ahead.topology_devices(args.topology)
    if args.quick:
        hurry()
    import jax

    from genjax import build
    from genjax.train.loop import check_plan
    from genjax.train.sharding import make_layout
    from genjax.train.workdir import write_json

    spec = spec or build.dataset(config).spec
    layout = make_layout(axes, **build.sharding_rules(config), devices=devices)
    plan = build.plan(config)
    check_plan(plan, layout.parts)
    algorithm = build.algorithm(config, spec)
    like = batch_like(spec, plan.batch_size)
    print(f"{args.topology}: {len(devices)} chips; mesh {dict(layout.mesh.shape)}; batch {plan.batch_size}", flush=True)
    programs = {"train step": plan_ahead.compile_step(algorithm, layout, like)}
    print("\n".join(report("train step", programs["train step"], chip)), flush=True)
    if not args.no_sampler:
        n = args.samples or 4 * layout.parts
        cond = {"label": jax.ShapeDtypeStruct((n,), "int32")} if build.is_conditional(config) else None
        programs["sampler"] = plan_ahead.compile_sampler(algorithm, layout, like, n, cond)
        print("\n".join(report(f"sampler of {n}", programs["sampler"], chip, loop=True)))
    if out:
        found = {name: record(program, chip) for name, program in programs.items()}
        write_json(out, {"topology": args.topology, "mesh": dict(layout.mesh.shape), "programs": found})
    return 0


def batch_like(spec, batch_size):
    """Shapes of a batch of data of `spec`."""
    import jax

    like = {"x": jax.ShapeDtypeStruct((batch_size, *spec.shape), "float32")}
    if "label" in spec.fields:
        like["label"] = jax.ShapeDtypeStruct((batch_size,), "int32")
    return like
