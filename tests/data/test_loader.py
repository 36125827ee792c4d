"""The loader: order, epochs, processes, resuming, prefetch; and batches of sets on the device."""

import json
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.data import Dataset, DataSpec, Loader, Prefetch, batch_at, batch_indices, in_memory, on_device, permuted


def numbered(n, name="numbers"):
    return in_memory(name, {"x": np.arange(n)[:, None], "label": np.arange(n)}, n, range=None)


def labels(loader, batches):
    return [next(loader)["label"] for _ in range(batches)]


@pytest.mark.parametrize("n, batch", [(24, 6), (25, 6), (7, 7), (5, 1)])
def test_an_epoch_visits_each_example_at_most_once(n, batch):
    loader = Loader(numbered(n), batch, seed=1)
    epochs = [np.concatenate(labels(loader, loader.steps_per_epoch)) for _ in range(4)]
    loader.close()
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == n // batch * batch
    if n > 5:
        assert any(not np.array_equal(epochs[0], e) for e in epochs[1:])  # another order each epoch
    if n % batch:
        assert len(set(np.concatenate(epochs))) == n  # another remainder is dropped each epoch


def test_order_depends_on_the_seed_alone():
    make = lambda **o: np.concatenate(labels(Loader(numbered(40), 8, **o), 10))
    np.testing.assert_array_equal(make(seed=3), make(seed=3, threads=1))
    assert not np.array_equal(make(seed=3), make(seed=4))
    plain = make(seed=3, shuffle=False)
    np.testing.assert_array_equal(plain, np.tile(np.arange(40), 2))


def test_blocks_of_the_processes_are_the_batch_of_one():
    """Would catch a sample whose place in the batch, and so its key, depends on the number of processes."""
    data = numbered(26)
    whole = labels(Loader(data, 8, seed=5), 9)
    parts = [labels(Loader(data, 8, seed=5, process=p, processes=2), 9) for p in range(2)]
    for batch, a, b in zip(whole, *parts):
        assert len(a) == len(b) == 4 and not set(a) & set(b)
        np.testing.assert_array_equal(np.concatenate([a, b]), batch)


def test_resumes_bit_for_bit():
    data = numbered(30)
    loader = Loader(data, 4, seed=2)
    labels(loader, 10)  # into the second epoch
    state = json.loads(json.dumps(loader.get_state()))
    expected = labels(loader, 12)
    again = Loader(data, 4, seed=2)
    again.set_state(state)
    np.testing.assert_array_equal(labels(again, 12), expected)
    loader.set_state(state)  # and back on the same loader
    np.testing.assert_array_equal(labels(loader, 12), expected)
    for one in (loader, again):
        one.close()


class Slow:
    """A source in which even examples take longer than odd ones, and one may be broken."""

    def __init__(self, n, broken=None):
        self.n, self.broken, self.threads = n, broken, set()

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.threads.add(threading.current_thread().name)
        if i == self.broken:
            raise ValueError(f"broken example {i}")
        if i % 2 == 0:
            threading.Event().wait(0.002)
        return {"x": np.float32([i]), "label": np.int32(i)}


def slow(n, broken=None):
    return Dataset("slow", DataSpec((1,), n, None, 0, ("x", "label")), source=Slow(n, broken))


def test_threads_keep_the_order():
    data = slow(32)
    loader = Loader(data, 4, seed=7, threads=4)
    got = labels(loader, 16)
    loader.close()
    np.testing.assert_array_equal(got, labels(Loader(numbered(32), 4, seed=7, threads=1), 16))
    assert threading.current_thread().name not in data.source.threads  # read aside of the training loop


def test_prefetch_keeps_order_and_position():
    data = numbered(30)
    plain = Loader(data, 4, seed=2)
    expected = labels(plain, 20)
    with Prefetch(Loader(data, 4, seed=2), ahead=3) as ahead:
        first = [next(ahead) for _ in range(9)]
        assert all(isinstance(leaf, jax.Array) for leaf in first[0].values())
        np.testing.assert_array_equal([b["label"] for b in first], expected[:9])
        state = json.loads(json.dumps(ahead.get_state()))  # what was only read ahead must not count
        np.testing.assert_array_equal([next(ahead)["label"] for _ in range(11)], expected[9:])
        ahead.set_state(state)
        np.testing.assert_array_equal([next(ahead)["label"] for _ in range(11)], expected[9:])
    with Prefetch(Loader(data, 4, seed=2)) as other:
        assert json.dumps(other.get_state()) == json.dumps(Loader(data, 4, seed=2).get_state())
        other.set_state(state)
        np.testing.assert_array_equal(next(other)["label"], expected[9])


def test_prefetch_places_batches():
    device = jax.devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    with Prefetch(Loader(numbered(8), 4), sharding) as ahead:
        assert next(ahead)["x"].sharding == sharding
    with Prefetch(Loader(numbered(8), 4), lambda batch: {"z": jnp.asarray(batch["x"]) + 1}) as ahead:
        assert set(next(ahead)) == {"z"}


def test_prefetch_raises_what_the_reader_raised():
    ahead = Prefetch(Loader(slow(12, broken=5), 3, shuffle=False, threads=1))
    next(ahead)
    with pytest.raises(ValueError, match="broken example 5"):
        next(ahead)
    with pytest.raises(StopIteration):
        next(ahead)
    ahead.close()


def test_prefetch_leaves_no_thread_behind():
    running = lambda: [t for t in threading.enumerate() if t.name == "genjax-prefetch"]
    before = len(running())
    for taken in (0, 1, 5):  # with a full queue, with a half-empty one, and at the start
        ahead = Prefetch(Loader(numbered(12), 3), ahead=2)
        for _ in range(taken):
            next(ahead)
        assert len(running()) == before + 1
        ahead.close()
        ahead.close()
        assert len(running()) == before
    with pytest.raises(StopIteration):
        next(ahead)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"batch_size": 11}, "batch_size: expected 1 to 10 .the examples of numbers., got 11"),
        ({"batch_size": 0}, "batch_size: expected 1 to 10"),
        ({"batch_size": 5, "processes": 2}, "batch_size: expected a multiple of the 2 processes, got 5"),
        ({"batch_size": 4, "processes": 2, "process": 2}, "process: expected 0 to 1, got 2"),
        ({"batch_size": 4, "threads": 0}, "threads: expected at least 1"),
    ],
)
def test_bad_loaders(options, match):
    with pytest.raises(ValueError, match=match):
        Loader(numbered(10), **options)


def test_bad_prefetch():
    with pytest.raises(ValueError, match="ahead: expected at least 1"):
        Prefetch(Loader(numbered(10), 2), ahead=0)


permute = jax.jit(permuted, static_argnums=2)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 31, 32, 33, 1000, 1437, 65537])
def test_permuted_is_a_permutation(n):
    image = np.asarray(permute(jax.random.key(n), jnp.arange(n), n))
    np.testing.assert_array_equal(np.sort(image), np.arange(n))


def test_permutations_are_random():
    # over many keys every example comes at every position equally often, and pairs of neighbours too:
    # catches a cipher with too few rounds, or whose cycle walk favours some places
    n, keys = 7, 7000
    image = np.asarray(
        jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(n), n)))(jax.random.split(jax.random.key(0), keys))
    )
    count = np.stack([np.bincount(image[:, i], minlength=n) for i in range(n)])
    chi2 = ((count - keys / n) ** 2 / (keys / n)).sum()
    assert chi2 < 36 + 5 * np.sqrt(72)  # (n - 1)^2 degrees of freedom
    pairs = np.bincount(image[:, 2] * n + image[:, 3], minlength=n * n).reshape(n, n)
    assert (np.diag(pairs) == 0).all()
    off, expected = pairs[~np.eye(n, dtype=bool)], keys / (n * (n - 1))
    assert ((off - expected) ** 2 / expected).sum() < 41 + 6 * np.sqrt(82)


def test_large_permutations_have_no_order():
    n = 20_000
    image = np.asarray(permute(jax.random.key(1), jnp.arange(n), n))
    assert abs(np.corrcoef(image, np.arange(n))[0, 1]) < 0.03
    assert abs(np.corrcoef(image[1:], image[:-1])[0, 1]) < 0.03
    other = np.asarray(permute(jax.random.key(2), jnp.arange(n), n))
    assert (image == other).sum() < 10  # one fixed place is expected


@pytest.mark.parametrize("n, batch", [(24, 6), (25, 6), (6, 6)])
def test_epochs_on_the_device(n, batch):
    # all of it in one compiled scan, as a train dispatch runs it
    key, steps = jax.random.key(3), 4 * (n // batch)
    scan = jax.jit(lambda: jax.lax.scan(lambda c, i: (c, batch_indices(key, i, n, batch)), 0, jnp.arange(steps))[1])
    index = np.asarray(scan()).reshape(4, -1)
    for epoch in index:
        assert len(set(epoch)) == n // batch * batch and epoch.min() >= 0 and epoch.max() < n
    assert not np.array_equal(index[0], index[1])
    # the step alone says the batch: no history needed to resume
    np.testing.assert_array_equal(batch_indices(key, jnp.int32(steps - 1), n, batch), index.reshape(steps, batch)[-1])


def test_devices_share_a_batch():
    # the rows of the devices, put together, are the batch: it does not change with their number
    key = jax.random.key(4)
    whole = batch_indices(key, 5, 100, 12)
    parts = [batch_indices(key, 5, 100, 12, start=3 * d, count=3) for d in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    traced = jax.jit(lambda start: batch_indices(key, 5, 100, 12, start, 3))
    np.testing.assert_array_equal(np.concatenate([traced(3 * d) for d in range(4)]), whole)


def test_batch_at_gathers_every_field():
    data = numbered(10)
    arrays = on_device(data)
    batch = batch_at(jax.random.key(5), 3, arrays, 4)
    np.testing.assert_array_equal(batch["x"][:, 0], batch["label"])
    np.testing.assert_array_equal(batch["label"], batch_indices(jax.random.key(5), 3, 10, 4))
    in_order = batch_at(jax.random.key(5), 3, arrays, 4, shuffle=False)["label"]
    np.testing.assert_array_equal(in_order, [4, 5, 6, 7])  # two batches an epoch


def test_bad_resident_batches():
    with pytest.raises(ValueError, match=r"batch_size: expected 1 to 10 .the examples., got 11"):
        batch_at(jax.random.key(0), 0, {"x": jnp.zeros((10, 2))}, 11)
    with pytest.raises(ValueError, match="too big for the device"):
        on_device(slow(3))
    with pytest.raises(ValueError, match="n: expected 1"):
        permuted(jax.random.key(0), jnp.arange(1), 0)
