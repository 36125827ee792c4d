"""Floating-point operations of a program, counted on its jaxpr.

XLA's own count visits a loop's body once, whatever its number of passes, and differs between backends. Here
matrix products and convolutions are counted by their shapes, two operations a multiplication and addition,
and a scan's body as often as it runs. The rest (norms, activations) is not counted, as in published figures.
"""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def _dot_general(eqn):
    (contract, _), _ = eqn.params["dimension_numbers"]
    depth = math.prod(eqn.invars[0].aval.shape[i] for i in contract)
    return 2 * math.prod(eqn.outvars[0].aval.shape) * depth


def _convolution(eqn):
    # every element of the output sums over the kernel's window and its input channels (already one group's)
    kernel = eqn.invars[1].aval.shape
    numbers = eqn.params["dimension_numbers"].rhs_spec
    return 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[numbers[0]]


# The toolkit's own convolution and its two transposes (`networks.convolution`): all three cost what the
# convolution does, 2 (elements of its output) (elements of one kernel) / (output channels).
def _conv_cost(output, kernel, members):
    return 2 * math.prod(output.aval.shape) * math.prod(kernel.aval.shape[members:-1])


def _conv(eqn):
    return _conv_cost(eqn.outvars[0], eqn.invars[1], eqn.params["members"])


def _conv_x(eqn):
    return _conv_cost(*eqn.invars, eqn.params["members"])


def _conv_k(eqn):
    return _conv_cost(eqn.invars[1], eqn.outvars[0], eqn.params["members"])


COSTS = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    "conv": _conv,
    "conv_x": _conv_x,
    "conv_k": _conv_k,
}


def _inner(value):
    """Jaxprs in the value of one parameter of an equation."""
    if isinstance(value, ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _inner(item)


def count_jaxpr(jaxpr):
    """Operations of one call of a jaxpr; a `while` of unknown length counts once, a `cond` as its dearest branch."""
    total = 0
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in COSTS:
            total += COSTS[name](eqn)
            continue
        inner = [count_jaxpr(j) for value in eqn.params.values() for j in _inner(value)]
        if name == "cond":
            total += max(inner, default=0)
        else:
            total += sum(inner) * (eqn.params["length"] if name == "scan" else 1)
    return total


def count(fn, *args):
    """Operations of `fn(*args)`, traced by shape (arrays or ShapeDtypeStructs); nothing is computed."""
    return count_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)
