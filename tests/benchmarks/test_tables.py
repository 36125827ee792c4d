"""Seeds in one program are the seeds apart; the rows of the table of networks can be built, and it says which lack."""

from genjax import build
from genjax.data import DataSpec


def test_seeds_in_one_program_are_the_seeds_apart(benchmark):
    """A key or an order of the data shared by all seeds would make the vmapped program cheaper than what it stands
    for; the parameters it ends in are those of the runs."""
    seeds = benchmark("seeds")
    found = seeds.measure("mlp", 2, 1, batch=16, steps=4, fields={"width": 8, "depth": 1})
    assert found["difference"] < 1e-5 and found["steps"] == 4
    keys, indices = seeds.inputs(2, 4, 100, 16)
    assert indices.shape == (2, 4, 16) and (indices[0] != indices[1]).any() and keys[0] != keys[1]
    numbers = {"compile one": 2.0, "compile all": 3.0, "runs": 8.0, "vmapped": 4.0, "seeds": 4}
    assert seeds.ratios(numbers) == {"without compile": 0.5, "one process": 0.7, "N processes": 7 / 16}


def test_rows_of_the_table_can_be_built(benchmark):
    """Every network takes its config; the batch grows with the slice."""
    table = benchmark("compile_table")
    for case in table.CASES.values():
        config = table.config_of(case, 64)
        assert config.train.batch_size == 64 * case.share
        build.algorithm(config, DataSpec(case.shape, case.classes, fields=("x", "label") if case.classes else ("x",)))


def test_the_table_says_what_is_missing(benchmark):
    table = benchmark("compile_table")
    memory = {"parameters": 1e9, "optimizer": 2e9, "averages": 1e9, "activations": 5e8, "peak": 4.5e9}
    times = {"compute": 0.1, "memory": 0.2, "network": 0.05, "least": 0.2, "most": 0.35}
    row = {"memory": memory, "seconds": times, "fits": True, "collectives": {}, "operations": 1e12, "batch": 256}
    row |= {"remat": True, "compile_cpu": 9.0, "date": "2020-01-01", "versions": {"jax": "1"}}
    lines = table.table({"dit_xl_2/v5e/8/data": row}).splitlines()
    assert [line for line in lines if "| 4.50 GB |" in line and "| 200 ... 350 | 50% ... 29% |" in line]
    missing = next(line for line in lines if line.startswith("Not measured yet"))
    assert "dit_xl_2/v5e/8/fsdp" in missing and "dit_xl_2/v5e/8/data" not in missing
    assert not [line for line in lines if line.startswith("Rows compiled at")]
    full = {**row, "memory": {**memory, "peak": 5e9}, "compile_cpu": 36.0}
    lines = table.table({"dit_xl_2/v5e/8/data": row, "dit_xl_2/v5e/8/data/full": full}).splitlines()
    assert "| DiT-XL/2, 256 px latents | 8 | data | 0.90 | 1.00 | - | 9 | 36 |" in lines
