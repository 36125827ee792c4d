"""Settings of the whole suite: CPU, programs compiled in a hurry, loud JAX.

Most programs of the tests run for an instant: what they cost is their compiling. Without optimizing, with XLA's older
code generator for fused operations and in one piece it takes less than half the time. Processes that a test starts
inherit this; where optimized programs are what is tested, or run long, a test asks for them by the fixture `optimized`.
"""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = " ".join(
    (
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        os.environ.get("XLA_FLAGS", ""),
    )
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.freeze()  # searching all that is imported for garbage, again and again, is a twelfth of the time
gc.set_threshold(100_000, 20, 50)

GIGABYTES = 4  # of one process


def _memory():
    """What this process holds, in GB; infinite where the system does not say."""
    statm = pathlib.Path("/proc/self/statm")
    if not statm.exists():
        return float("inf")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drops compiled programs after a file by which the process has grown large; those of single operations recur."""
    yield
    if _memory() > GIGABYTES:
        jax.clear_caches()


@pytest.fixture
def optimized():
    """Programs optimized as users have them: `@pytest.mark.usefixtures("optimized")`, or as a file's `pytestmark`."""
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.config.update(name, False)
    os.environ[name.upper()] = "0"
    jax.clear_caches()  # what other tests have compiled
    yield
    jax.config.update(name, before)
    os.environ[name.upper()] = str(int(before))


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
