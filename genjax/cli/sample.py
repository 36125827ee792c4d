"""Draws samples from a trained model to a picture or to arrays.

  genjax sample --workdir=runs/digits --num=100 --out=digits.png
  genjax sample --workdir=runs/digits --num=64 --labels=3,7 --solver="DPM++ 2M Karras" --steps=12 --out=x.npz

The picture of a conditional model has a block of samples a class, in the order of --labels. --solver, --grid, --steps
and --cfg-scale are short for --config.sample.KEY=VALUE, which takes the other settings of sampling too.
"""

from genjax.cli import sampling

OVERRIDES = True


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="directory that `genjax train` wrote")
    parser.add_argument("--num", type=int, default=64, help="number of samples (64)")
    parser.add_argument("--out", required=True, help="FILE.png, or FILE.npz with the arrays x and label")
    parser.add_argument("--labels", help="classes: 0,3,7 or 0-9 or none; all classes by default")
    sampling.add_arguments(parser)
    parser.add_argument("--mesh", help="split model and samples over devices, such as data=-1,fsdp=8 (one device)")
    parser.add_argument("--seed", type=int, default=0, help="seed (0)")


def parse_labels(text, num, num_classes):
    """Labels [num] from "0,3,7", "0-9" or "none" (-1): equal blocks in the order given.

    Raises:
      ValueError: no whole numbers, a range from its upper end, a class that does not exist, more labels than samples.
    """
    if text == "none":
        return [-1] * num
    labels = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"--labels: expected classes such as 0,3,7 or 0-9, got {text!r}")
        if dash and int(last) < int(first):
            raise ValueError(f"--labels: expected a range from its lower end, such as {last}-{first}, got {part!r}")
        labels.extend(range(int(first), int(last) + 1) if dash else [int(first)])
    for label in labels:
        if label >= num_classes:
            raise ValueError(f"--labels: expected classes 0 ... {num_classes - 1}, got {label}")
    if not 0 < len(labels) <= num:
        raise ValueError(f"--labels: expected 1 to {num} classes for {num} samples, got {len(labels)}")
    return [labels[i * len(labels) // num] for i in range(num)]


def layout(labels, names):
    """(columns, text of each row) of a picture with a class a row, (None, None) where that is not so."""
    if labels is None or labels[0] < 0:
        return None, None
    columns = labels.count(labels[0])
    rows = [labels[i] for i in range(0, len(labels), columns)]
    if len(rows) < 2 or columns > 32 or labels != [label for label in rows for _ in range(columns)]:
        return None, None
    return columns, [names[label] if names else label for label in rows]


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import runtime

    config = runtime.stored_config(args.workdir)
    path = runtime.check_output(args.out, ".png", ".npz")
    if args.num < 1:
        raise ValueError(f"--num: expected at least 1, got {args.num}")
    sampling.apply(config, args)
    runtime.use_cache()
    import jax
    import numpy as np

    from genjax.train import pictures
    from genjax.train.generation import draw
    from genjax.train.workdir import atomic_path

    conditional = "label" in config.get("algorithm", {}).get("cond", ())
    if args.labels is not None and not conditional:
        raise ValueError("--labels: the model of this workdir is unconditional and takes none")
    model = runtime.restore(config, args.workdir, mesh=args.mesh)
    spec, labels, cond = model.data.spec, None, None
    if path.suffix == ".png":
        pictures.check_picture(spec)
    if conditional:
        text = f"0-{spec.num_classes - 1}" if args.num >= spec.num_classes else ",".join(map(str, range(args.num)))
        labels = parse_labels(args.labels or text, args.num, spec.num_classes)
        cond = {"label": np.asarray(labels, np.int32)}
    x = draw(model.parts.algorithm, jax.random.key(args.seed), model.state, args.num, cond)
    if path.suffix == ".png":
        columns, names = layout(labels, spec.class_names)
        pictures.save(path, pictures.picture_of(x, spec, labels, columns, names))
    else:
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, x=x, **({} if labels is None else cond))
    print(f"{args.num} samples of step {model.step}, seed {args.seed}: {path}")
    return 0
