"""The command itself: nothing heavy on start, errors of one line with code 2."""

import subprocess
import sys
import time

import pytest

from genjax.cli.main import COMMANDS, main

LOADED = """
import sys
from genjax.cli.main import main
try:
    main({argv})
except SystemExit:
    pass
heavy = [m for m in ("jax", "flax", "numpy", "orbax", "matplotlib", "sklearn", "ml_collections") if m in sys.modules]
print("heavy:", heavy)
"""


@pytest.mark.parametrize(
    "argv", [["--help"], ["train", "--help"], ["sample", "--help"], ["evaluate", "--help"], ["restore", "--help"]]
)
def test_help_imports_nothing_heavy(argv):
    """Would catch a stray import at the top of a module of the command line."""
    began = time.monotonic()
    out = subprocess.run([sys.executable, "-c", LOADED.format(argv=argv)], capture_output=True, text=True, timeout=60)
    assert out.stdout.strip().endswith("heavy: []"), out.stdout + out.stderr
    assert time.monotonic() - began < 5  # 0.1 s on an idle machine


def test_importing_the_package_imports_no_jax():
    code = "import sys, genjax; print('jax' in sys.modules, 'numpy' in sys.modules, len(dir(genjax)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert out.stdout.startswith("False False"), out.stdout + out.stderr


def test_every_public_name_is_there_and_documented():
    import genjax

    for name in genjax.__all__:
        thing = getattr(genjax, name)
        assert thing.__doc__ or name in genjax.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = genjax.nothing


def test_usage_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["x"], "unknown command 'x'; expected one of train, sample"),
        (["train"], "the following arguments are required: --workdir"),
        (["train", "--workdir=w", "--confg=x"], "unrecognized arguments: --confg=x"),
        (["train", "--workdir=nowhere"], "--workdir: expected a directory that `genjax train` wrote, got 'nowhere'"),
        (["train", "--config=zzzzz", "--workdir=nowhere"], "--config: unknown config 'zzzzz'"),
        (["sample", "--workdir=nowhere", "--num=4", "--out=x.png"], "--workdir: expected a directory"),
        (["evaluate", "--workdir=nowhere"], "--workdir: expected a directory"),
    ],
)
def test_bad_command_lines(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
