"""The samplers that the runner makes of configs: which of them share a program, and for which recipes."""

import re


def programs(records):
    """Names of the programs that XLA compiled, out of the log of `jax.log_compiles`."""
    found = (re.match(r"Finished XLA compilation of jit\((.*?)\) ", r.getMessage()) for r in records)
    return [match[1] for match in found if match]


def test_variants_that_differ_in_numbers_share_the_sampler(caplog):
    """Catches a sampler compiled anew for another schedule, for a weighting that only training reads or for another
    seed's weights; and one that is shared where the solver differs, or that forgets whose process it draws by.
    """
    import jax
    import numpy as np

    from genjax import build
    from genjax.cli import runner_default, runner_digits

    def config(process=None, **groups):
        return runner_digits.base_config("smoke", 0, process={"name": "edm", **(process or {})}, **groups)

    configs = {
        "plain": config(),
        "short": config({"sigma_max": 5.0}),
        "trained otherwise": config(loss={"measure": "log_snr"}),
        "another solver": config(sample={"solver": "euler", "steps": 5}),
    }
    spec, key, drawn, counts = runner_digits.spec(), jax.random.key(0), {}, []
    init = jax.jit(build.algorithm(configs["plain"], spec).init)
    states = [init(jax.random.key(seed), {"x": np.zeros((2, 64), np.float32)}) for seed in range(4)]
    for state, (name, c) in zip(states, configs.items()):
        with jax.log_compiles(), caplog.at_level("WARNING"):
            drawn[name] = runner_default.draw(c, spec, state, key, 3)
        counts.append(programs(caplog.records).count("sampler"))
        caplog.clear()
    assert counts == [1, 0, 0, 1]
    # the toolkit's own sampler, its process a constant of the program
    alone = jax.jit(build.algorithm(configs["short"], spec).sample, static_argnums=2)(key, states[1], 3)
    np.testing.assert_allclose(drawn["short"], alone, rtol=1e-4, atol=1e-4)
    other = runner_default.draw(configs["plain"], spec, states[1], key, 3)
    assert np.abs(drawn["short"] - other).max() > 1e-2


def test_a_training_with_snapshots_is_one_program(caplog):
    """Catches a first state that lies elsewhere than the dispatch leaves it, for which all would compile twice."""
    import jax
    import numpy as np

    from genjax import build
    from genjax.cli import runner_default, runner_digits

    config = runner_default.model_config(runner_digits.base_config("smoke", 0, process={"name": "edm"}))
    algorithm, arrays = build.algorithm(config, runner_digits.spec()), {"x": np.zeros((8, 64), np.float32)}
    with jax.log_compiles(), caplog.at_level("WARNING"):
        found = runner_default.fit(algorithm, arrays, jax.random.key(0), 4, 2, snapshots=2)
    assert [step for step, _, _ in found] == [2, 4]
    assert programs(caplog.records).count("dispatch") == 1


def test_games_are_sampled_too():
    """Catches a runner that takes every recipe for a diffusion model's; traced alone."""
    import jax
    from ml_collections import ConfigDict

    from genjax import build
    from genjax.cli import runner_default, runner_digits

    small = {"name": "mlp", "width": 8, "depth": 1}
    config = ConfigDict({"data": {"name": "digits_vector"}, "algorithm": {"name": "gan"}, "train": {"steps": 1}})
    config.update({"generator": small, "discriminator": small, "loss": {"name": "non_saturating"}, "part": ""})
    spec, key = runner_digits.spec(), jax.random.key(0)
    plain = runner_default.model_config(config)
    state = jax.eval_shape(build.algorithm(plain, spec).init, key, {"x": jax.ShapeDtypeStruct((2, 64), "float32")})
    drawn = jax.eval_shape(lambda key, state: runner_default.draw(config, spec, state, key, 3), key, state)
    assert drawn.shape == (3, 64)
    assert runner_default.sampling(config, spec)[0] is runner_default.sampling(config, spec)[0]
