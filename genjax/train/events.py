"""TensorBoard's event file, written as things happen: no thread, so that a full disk is an error and not a wait.

A record is its length and the data, each followed by a checksum (the TFRecord format).
"""

import os
import socket
import struct
import time
from pathlib import Path

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c


class Events:
    """One event file in `folder`.

    Args:
      folder: made where missing.
      step: the first step that will be written; TensorBoard drops what older files say of it and of later ones.
    """

    def __init__(self, folder, step):
        folder = Path(folder)
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(folder / name, "ab")  # noqa: SIM115 (closed by `close`)
        self._write(Event(step=step, file_version="brain.Event:2"))
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        self._file.flush()

    def _write(self, event):
        event.wall_time = time.time()
        data = event.SerializeToString()
        head = struct.pack("<Q", len(data))
        check = lambda part: struct.pack("<I", masked_crc32c(part))
        self._file.write(head + check(head) + data + check(data))

    def scalars(self, step, values):
        """Writes {name: float} of one step."""
        for name, value in values.items():
            self._write(Event(step=step, summary=summary.scalar(name, value)))
        self._file.flush()

    def image(self, step, name, picture):
        """Writes a picture [H, W, 3] of uint8."""
        self._write(Event(step=step, summary=summary.image(name, picture, dataformats="HWC")))
        self._file.flush()

    def close(self):
        self._file.close()
