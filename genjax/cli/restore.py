"""Restores images from a measurement with a trained diffusion model as the prior.

  genjax restore --workdir=runs/digits --degrade --input=images --out=restored \\
      --operator=super_resolution --operator.factor=2 --noise.std=0.1 --method=dps --method.scale=1.0
  genjax restore --workdir=runs/digits --measured --input=y.png --truth=x.png --out=restored \\
      --operator=inpaint --operator.mask=mask.png --method=diffpir --samples=16

--input is an image, a folder of images (or of one folder a class), or a file .npz with the array x [N, H, W, C] in
[-1, 1] or in bytes. With --degrade they are clean, and are measured first. With --measured they are measurements
(y in an .npz) as the operator makes them; what is not an image there, such as Radon's or Fourier's, comes as .npz.

Settings of the operator, the noise and the method follow a dot: --method.steps=50. --steps is short for that.

operators: blur colorization compressed_sensing fourier hdr identity inpaint inpaint_box inpaint_random jpeg
  limited_angle low_light motion_blur nonlinear_blur phase_retrieval radon super_resolution varying_blur;
  inpaint takes --operator.mask=FILE.png, white where the image is seen
noises: gaussian laplace poisson
methods: daps ddnm ddnm_plus ddrm deep_prior diffpir dps gdp mcg pigdm projection red_diff repaint sdedit smc tmpd

--out is a new folder: restored.png (a row an image: what was measured, the estimate, a draw, the spread over draws,
the truth), NAME.png and NAME.npz of each image, and metrics.json with PSNR, SSIM and the distance of features where
the truth is known. The estimate is the mean of --samples draws. A draw depends on the seed and its number alone.
"""

GROUPS = ("operator", "noise", "method")  # whose settings follow a dot


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, help="directory that `genjax train` wrote: the prior")
    parser.add_argument("--input", required=True, help="an image, a folder of images, or a file .npz")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--degrade", action="store_true", help="the input is clean and is measured first")
    kind.add_argument("--measured", action="store_true", help="the input is the measurement itself")
    parser.add_argument("--truth", help="with --measured: the clean images, as --input, in the same order")
    parser.add_argument("--resize", action="store_true", help="scale and crop clean images to the prior's size")
    parser.add_argument("--operator", required=True, help="what measured the images; settings as --operator.KEY=VALUE")
    parser.add_argument("--noise", default="gaussian", help="its noise (gaussian, of --noise.std=0.05)")
    parser.add_argument("--method", default="dps", help="how they are restored (dps); settings as --method.KEY=VALUE")
    parser.add_argument("--steps", type=int, help="short for --method.steps")
    parser.add_argument("--samples", type=int, default=8, help="draws an image (8)")
    parser.add_argument("--labels", help="class of each image: 3, or 3,7,0 one each, or data: the input's own")
    parser.add_argument("--cfg-scale", type=float, default=1.0, help="guidance by the labels, 1 for none (1)")
    parser.add_argument("--batch", type=int, default=64, help="draws that are computed at once (64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of noise and draws (0)")
    parser.add_argument("--out", required=True, help="folder to be made")


def run(args):
    """Runs the command. Returns the exit code."""
    from genjax.cli import runtime
    from genjax.train.workdir import check_writable

    config = runtime.stored_config(args.workdir)
    for name in ("samples", "batch"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name}: expected at least 1, got {getattr(args, name)}")
    if args.truth and args.degrade:
        raise ValueError("--truth: expected only with --measured; with --degrade the input is the truth")
    out = check_folder(args.out)
    runtime.use_cache()
    from genjax.cli import restoration

    method = restoration.method_of(args.method, args.settings["method"], args.steps)
    model = runtime.restore(config, args.workdir)
    prior = restoration.prior_of(model, args.cfg_scale)
    operator = restoration.operator_of(args.operator, args.settings["operator"], prior.shape)
    noise = restoration.noise_of(args.noise, args.settings["noise"])
    problem = restoration.problem_of(args, prior, operator, noise, method)
    check_writable(out.parent)  # last of what can go wrong, as it makes folders
    restored = restoration.restore(prior, method, problem, args.samples, args.seed, args.batch)
    figures = restoration.figures_of(model, problem, restored)
    print(f"step {model.step}, {args.method}, {args.samples} draws an image, seed {args.seed}: {out}")
    print(restoration.table(problem.names, figures))
    said = {name: {"name": getattr(args, name), **args.settings[name]} for name in GROUPS}
    restoration.write(out, problem, restored, figures, {**said, "step": model.step, "seed": args.seed})
    return 0


def check_folder(path):
    """The Path of a folder that is new or empty.

    Raises:
      ValueError: it holds something, or is a file.
    """
    from pathlib import Path

    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "one that holds files" if path.is_dir() else "a file"
        raise ValueError(f"--out: expected a new or empty folder, got {what}: {path}")
    return path
