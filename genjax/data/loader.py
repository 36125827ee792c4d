"""One loader for sets that do not live on the device: grain for order and reading, a thread for the device.

The global order is a shuffle of all examples, another each epoch; the remainder that does not fill
a batch is dropped. Batch i of process p is the p-th of P blocks of global batch i, the rows that its
devices hold: the blocks, one after another, are the batch of one process. The position is a small dict of
numbers, so a run resumes bit for bit. Reading uses threads: worker processes would fork, which can
deadlock under JAX.
"""

import queue
import threading
from typing import Any

import jax

_END = object()
_EPOCHS = 2**30  # endless, but its length still fits grain's arithmetic


class Loader:
    """An endless iterator over batches (dicts of numpy arrays) of a Dataset."""

    def __init__(self, dataset, batch_size, seed=0, *, shuffle=True, process=0, processes=1, threads=4):
        """Args:
          dataset: a `genjax.data.Dataset`.
          batch_size: of all processes together; a multiple of `processes`, at most the data.
          seed: of the order.
          shuffle: False keeps the order of the data, in every epoch.
          process, processes: which share this process reads (`jax.process_index()`, `jax.process_count()`).
          threads: that read; batches come in order whatever their number.

        Raises:
          ValueError: a batch size or a process that does not fit.
        """
        import grain  # half a second, which sets on the device need not pay

        n = len(dataset)
        if not 1 <= batch_size <= n:
            raise ValueError(f"batch_size: expected 1 to {n} (the examples of {dataset.name}), got {batch_size}")
        if not 0 <= process < processes:
            raise ValueError(f"process: expected 0 to {processes - 1}, got {process}")
        if batch_size % processes:
            raise ValueError(f"batch_size: expected a multiple of the {processes} processes, got {batch_size}")
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        self.steps_per_epoch = n // batch_size
        order = grain.MapDataset.range(n)
        order = order.seed(seed).shuffle() if shuffle else order
        order = order[: self.steps_per_epoch * batch_size].repeat(_EPOCHS)
        share = batch_size // processes
        rows = slice(process * share, (process + 1) * share)
        batches = order.batch(batch_size).map(lambda indices: dataset.take(indices[rows]))
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        self._iterator = iter(batches.to_iter_dataset(options))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterator)

    def get_state(self):
        """The position after the last batch given out, JSON-able."""
        return self._iterator.get_state()

    def set_state(self, state):
        """Goes to a position that `get_state` gave, on a loader made with the same arguments."""
        self._iterator.set_state(state)

    def close(self):
        """Ends the reading threads."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class Prefetch:
    """A Loader read ahead by one thread that also moves batches to the device.

    Use as a context manager, or call `close`. Batches come in the loader's order; an error of the
    loader is raised where its batch would have come.
    """

    def __init__(self, loader, sharding=None, ahead=2):
        """Args:
        loader: a Loader.
        sharding: where batches go, `jax.device_put`'s argument or a function batch -> batch on the
          device; None for the default device.
        ahead: batches kept ready, at least 1.
        """
        if ahead < 1:
            raise ValueError(f"ahead: expected at least 1, got {ahead}")
        self.loader, self.ahead = loader, ahead
        self._place = sharding if callable(sharding) else lambda batch: jax.device_put(batch, sharding)
        self._state: Any = loader.get_state()
        self._thread = None
        self._start()

    def _start(self):
        self._queue, self._stop = queue.Queue(self.ahead), threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._queue, self._stop), name="genjax-prefetch", daemon=True
        )
        self._thread.start()

    def _run(self, out, stop):
        while not stop.is_set():
            try:
                batch = self._place(next(self.loader))
                item = (batch, self.loader.get_state(), None)
            except BaseException as error:  # handed to the reader, whatever it is
                item = (_END, None, error)
            while not stop.is_set():
                try:
                    out.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if item[0] is _END:
                return

    def __iter__(self):
        return self

    def __next__(self):
        if self._thread is None:
            raise StopIteration
        batch, state, error = self._queue.get()
        if batch is _END:
            self._halt()
            raise error
        self._state = state
        return batch

    def get_state(self):
        """The position after the last batch given out: what was only read ahead does not count."""
        return self._state

    def set_state(self, state):
        """Goes to a position; what was read ahead is dropped."""
        self._halt()
        self.loader.set_state(state)
        self._state = state
        self._start()

    def _halt(self):
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None

    def close(self):
        """Ends the thread and the loader's; waits until they have ended."""
        self._halt()
        self.loader.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
