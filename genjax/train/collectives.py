"""The communication in a compiled program, read from its HLO text.

What counts is the bytes that one device sends, for the algorithms that move the least:

  all-gather, reduce-scatter   (n - 1) / n of the whole array
  all-reduce                   twice that
  all-to-all                   (n - 1) / n of the device's piece
  collective-permute           the device's piece

for groups of n devices. An instruction in the body of a loop counts as often as the loop runs, where the
compiler knows that.
"""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

_ARRAY = re.compile(r"\b(pred|bf16|f16|f32|f64|c64|c128|[su]\d+|f8\w+|f4\w+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_CALL = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_OP = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|ragged-all-to-all|all-to-all|collective-permute)(-start)?\("
)


class Collective(NamedTuple):
    """One collective instruction."""

    kind: str
    group: int  # devices that take part together
    nbytes: int  # of the whole array (the device's piece where it is exchanged)
    times: int  # how often it runs

    @property
    def sent(self):
        """Bytes that one device sends, all times together."""
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.nbytes * factor * self.times


def _bits(dtype):
    if dtype in BITS:
        return BITS[dtype]
    digits = re.match(r"[suf](\d+)", dtype)
    return int(digits.group(1))


def _arrays(text):
    """Bytes of each array in a type such as "(f32[2,3]{1,0}, bf16[4])"."""
    shapes = [(dtype, [int(n) for n in dims.split(",") if n]) for dtype, dims in _ARRAY.findall(text)]
    return [math.prod(dims) * _bits(dtype) // 8 for dtype, dims in shapes]


def _group(line, devices):
    """Devices in a group: of lists {{0,1},{2,3}}, of iotas [2,4]<=[8], or of mesh axes mesh['a'=2,..] {'a'}."""
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return found.group(1).count(",") + 1
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(found.group(2))
    if found := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^)]*\)(?:\([^)]*\))*\))? \{([^}]*)\}", line
    ):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", found.group(2)) if axis in sizes)
    return devices


def _computations(text):
    """name -> lines, and the name of the entry."""
    found, entry, current = {}, None, None
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            current = head.group(1)
            found[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current:
            found[current].append(line)
    return found, entry


def collectives(text, devices):
    """The Collectives of a program.

    Args:
      text: HLO of one device's program, `compiled.as_text()`.
      devices: number of devices, the group where an instruction names none.
    """
    computations, entry = _computations(text)
    times = {}

    def visit(name, count):
        times[name] = times.get(name, 0) + count
        for line in computations.get(name, ()):
            trips = _TRIPS.search(line)
            for target in _CALL.findall(line):
                for callee in re.findall(r"[\w.\-]+", target):
                    if callee in computations:
                        visit(callee, count * (int(trips.group(1)) if trips else 1))

    visit(entry, 1)
    found = []
    for name, lines in computations.items():
        for line in lines:
            op = _OP.search(line)
            if not op or not times.get(name):
                continue
            kind, sizes, group = op.group(2), _arrays(op.group(1)), _group(line, devices)
            if group == 1 or not sizes:
                continue
            if op.group(3) and kind in ("all-gather", "collective-permute"):
                sizes = [max(sizes)]  # a start's type holds its operand too
            nbytes = sum(sizes)
            if kind == "reduce-scatter":
                nbytes *= group  # its type is the device's piece
            if name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"  # TPU's fused form: an all-reduce in name, of which each device keeps a piece
            found.append(Collective(kind, group, nbytes, times[name]))
    return found


def summary(found):
    """{kind: (instructions run, bytes of their arrays, bytes that one device sends)}."""
    table = {}
    for c in found:
        runs, nbytes, sent = table.get(c.kind, (0, 0, 0.0))
        table[c.kind] = (runs + c.times, nbytes + c.nbytes * c.times, sent + c.sent)
    return {kind: table[kind] for kind in KINDS if kind in table}
