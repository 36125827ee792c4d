"""What a training says: JSON lines, TensorBoard events, a progress bar."""

import contextlib
import json
import math
import sys
import time
from pathlib import Path

from genjax.train.workdir import atomic_path


def read_metrics(path):
    """The records of a metrics.jsonl, a list of dicts; a line cut short ends it."""
    records = []
    path = Path(path)
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def truncate_metrics(path, step):
    """Drops the records later than `step`, so that a resumed training repeats none."""
    records = [r for r in read_metrics(path) if r["step"] <= step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in records))


class Log:
    """metrics.jsonl and TensorBoard events of one workdir.

    Args:
      workdir: path of an existing directory.
      step: the step that the training starts or resumes from; later records are dropped.
      events: also write TensorBoard events.
    """

    def __init__(self, workdir, step=0, events=True):
        self._path = Path(workdir) / "metrics.jsonl"
        self.last, self.say = {}, lambda line: None  # the newest metrics; how to show a line, set by the loop
        truncate_metrics(self._path, step)
        self._events = None
        if events:
            from genjax.train.events import Events

            self._events = Events(Path(workdir) / "events", step + 1)

    def write(self, step, metrics):
        """Appends one record: {"step": step, **metrics} with floats.

        Raises:
          OSError: it could not be written.
        """
        try:
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            if self._events:
                self._events.scalars(step, metrics)
        except OSError as error:
            raise OSError(f"{self._path}: step {step} could not be written: {error.strerror or error}") from error

    def image(self, step, name, image):
        """Adds a picture [H, W, 3] of uint8 to the events."""
        if self._events:
            self._events.image(step, name, image)

    def close(self):
        if self._events:
            with contextlib.suppress(OSError):  # told when it was written; here it would hide another error
                self._events.close()


class Silence:
    """A Log that keeps nothing: of the processes that do not write."""

    last, say = {}, staticmethod(lambda line: None)

    def write(self, step, metrics):
        pass

    def image(self, step, name, image):
        pass

    def close(self):
        pass


def duration(seconds):
    """Seconds as "1:02:03" or "2:03"."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class Progress:
    """A bar with rate, loss and time left on a terminal; a line now and then elsewhere.

    Args:
      start, steps: step at the beginning and at the end.
      stream: where to write; None for silence.
      every: seconds between lines where the stream is no terminal.
      table: names of metrics shown beside the bar, in this order; () for the loss alone.
    """

    def __init__(self, start, steps, stream=sys.stderr, every=10.0, table=()):
        self.table = tuple(table)
        self.start, self.steps, self.stream, self.every = start, steps, stream, every
        self.running, self.began, self.last = False, 0.0, -math.inf
        self.terminal = stream is not None and stream.isatty()
        self.bar = None
        if self.terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
            )
            console = Console(file=stream)
            self.bar = Progress(*columns, console=console)
            self.task = self.bar.add_task("train", total=steps, completed=start, note="compiling")
            self.live = _live(self.bar, console) if self.table else self.bar
            self.live.start()

    def run(self, step):
        """Starts the clock of the rate: what came before `step` was compiling."""
        self.running, self.start, self.began = True, step, time.monotonic()

    def update(self, step, metrics=None):
        """Shows that `step` is done, and of its metrics the table, or the loss."""
        if self.stream is None:
            return
        metrics = metrics or {}
        loss = None if self.table else metrics.get("loss")
        rows = {name: metrics[name] for name in self.table if name in metrics}
        now = time.monotonic()
        rate = (step - self.start) / max(now - self.began, 1e-9)
        left = duration((self.steps - step) / rate) if rate else "?"
        pace = f"{rate:.1f} steps/s" if rate else "compiled"
        note = pace + ("" if loss is None else f"  loss {loss:.4g}") + f"  {left} left"
        if self.bar:
            self.bar.update(self.task, completed=step, note=note)
            if rows:
                self.live.update(_beside(self.bar, rows))
        elif now - self.last >= self.every or step == self.steps:
            self.last = now
            cells = "".join(f"  {name} {value:.4g}" for name, value in rows.items())
            print(f"step {step}/{self.steps}  {note}{cells}", file=self.stream, flush=True)

    def say(self, line):
        """Prints a line above the bar."""
        if self.bar:
            self.bar.console.print(line, highlight=False, markup=False)
        elif self.stream:
            print(line, file=self.stream, flush=True)

    def close(self):
        if self.bar:
            self.live.stop()


def _live(bar, console):
    """A display of a bar that a table may be put under."""
    from rich.live import Live

    return Live(bar, console=console, refresh_per_second=4)


def _beside(bar, rows):
    """A bar above a table of {name: number}."""
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.4g}" for value in rows.values()))
    return Group(bar, table)
