"""The maps of measurements, matrix-free; OPERATORS: name -> constructor(shape, **numbers)."""

from genjax.inverse.operators.base import SVD, is_linear, matrix, prox_cg, require
from genjax.inverse.operators.dense import Dense, compressed_sensing, dense
from genjax.inverse.operators.inpainting import Inpainting, box, given, random
from genjax.inverse.operators.super_resolution import BlockAverage, Separable, separable, super_resolution

OPERATORS = {
    "compressed_sensing": compressed_sensing,
    "inpaint_box": box,
    "inpaint_random": random,
    "super_resolution": super_resolution,
}

__all__ = [
    "OPERATORS",
    "SVD",
    "BlockAverage",
    "Dense",
    "Inpainting",
    "Separable",
    "box",
    "compressed_sensing",
    "dense",
    "given",
    "is_linear",
    "matrix",
    "prox_cg",
    "random",
    "require",
    "separable",
    "super_resolution",
]
