"""The console command `genjax`. Nothing heavy is imported before a command needs it."""

import argparse
import difflib
import importlib
import os
import sys

COMMANDS = {
    # name: (module, what it does)
    "train": ("genjax.cli.train", "train a model by its config; run again to go on"),
    "sample": ("genjax.cli.sample", "draw samples from a trained model"),
    "evaluate": ("genjax.cli.evaluate", "measure a trained model"),
    "restore": ("genjax.cli.restore", "restore images with a trained model as the prior"),
    "reproduce": ("genjax.cli.reproduce", "measure a paper's claim over several seeds"),
    "compile": ("genjax.cli.compile", "size a training for a TPU slice, on any machine"),
    "export": ("genjax.cli.export", "write the sampler as one file that needs only JAX"),
    "papers": ("genjax.cli.papers", "list the papers reproduced here"),
}


class _Parser(argparse.ArgumentParser):
    """Reports errors as one line."""

    def error(self, message):
        raise ValueError(message)


def usage():
    lines = [
        "usage: genjax COMMAND [options]",
        "",
        "Generative models in JAX: diffusion, GANs and what lies between.",
        "",
    ]
    lines += [f"  {name:10} {what}" for name, (_, what) in COMMANDS.items()]
    lines += ["", "genjax COMMAND --help says more. Environment: GENJAX_CACHE, folder of cached files;"]
    lines += ["GENJAX_TRACEBACK=1, show where an error came from."]
    return "\n".join(lines)


def _dispatch(argv):
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(version("genjax-toolkit"))
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(COMMANDS)}"
        raise ValueError(f"unknown command {command!r}; {hint}")
    module = importlib.import_module(COMMANDS[command][0])
    parser = _Parser(prog=f"genjax {command}", description=module.__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    if hasattr(module, "OVERRIDES"):
        from genjax.cli.config import overrides

        found, rest = overrides(rest)
        args = parser.parse_args(rest)
        args.overrides = found
    elif hasattr(module, "GROUPS"):
        from genjax.cli.config import settings

        found, rest = settings(rest, module.GROUPS)
        args = parser.parse_args(rest)
        args.settings = found
    else:
        args = parser.parse_args(rest)
    return module.run(args) or 0


def main(argv=None):
    """Runs one command.

    Returns:
      0; 1 where a training diverged or the code of an experiment failed; 2 for bad input, an unwritable place
      and the like; each told in one line on stderr. 130 on interrupt.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(argv)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if os.environ.get("GENJAX_TRACEBACK"):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kind = type(error).__name__
        more = " (GENJAX_TRACEBACK=1 shows more)" if len(lines) > 1 or kind == "ExperimentError" else ""
        command = f"genjax {argv[0]}" if argv and argv[0] in COMMANDS else "genjax"
        print(f"{command}: error: {lines[0]}{more}", file=sys.stderr)
        return 1 if kind in ("Diverged", "ExperimentError") else 2


if __name__ == "__main__":
    sys.exit(main())
