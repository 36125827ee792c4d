"""What the tests of the commands share."""

import os

import jax
import pytest

_OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Cached files of a module's runs, apart from the user's; its runs share compiled programs."""
    folder = tmp_path_factory.mktemp("cache")
    before = {name: getattr(jax.config, name) for name in _OPTIONS}
    old, os.environ["GENJAX_CACHE"] = os.environ.get("GENJAX_CACHE"), str(folder)
    yield folder
    os.environ.pop("GENJAX_CACHE") if old is None else os.environ.update(GENJAX_CACHE=old)
    for name, value in before.items():
        jax.config.update(name, value)
