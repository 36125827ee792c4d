"""Inverse problems: operators, noises, measurements and posterior samplers."""

from genjax.inverse.measurement import check_measurement, measure
from genjax.inverse.noises import NOISES, Gaussian, Laplace, Poisson, Structured, gaussian_std
from genjax.inverse.operators import OPERATORS

__all__ = [
    "NOISES",
    "OPERATORS",
    "Gaussian",
    "Laplace",
    "Poisson",
    "Structured",
    "check_measurement",
    "gaussian_std",
    "measure",
]
