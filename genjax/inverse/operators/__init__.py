"""The maps of measurements, matrix-free; OPERATORS: name -> constructor(shape, **numbers)."""

from genjax.inverse.operators.base import SVD, is_linear, matrix, prox_cg, require
from genjax.inverse.operators.blur import Blur, VaryingBlur, blur, given_blur, motion_blur, varying_blur
from genjax.inverse.operators.camera import Clip, Exposure, LinearLightBlur, hdr, low_light, nonlinear_blur
from genjax.inverse.operators.combination import Combination, gray, mixture_of_two
from genjax.inverse.operators.dense import Dense, compressed_sensing, dense
from genjax.inverse.operators.fourier import FourierSampling, PhaseRetrieval, fourier, phase_retrieval
from genjax.inverse.operators.inpainting import Inpainting, box, given, identity, random
from genjax.inverse.operators.jpeg import Jpeg, jpeg
from genjax.inverse.operators.kernels import gaussian_kernel, motion_kernel
from genjax.inverse.operators.radon import Radon, limited_angle, radon
from genjax.inverse.operators.super_resolution import BlockAverage, Separable, separable, super_resolution
from genjax.inverse.operators.wrappers import Slices, Stack, slices, stack

OPERATORS = {
    "blur": blur,
    "colorization": gray,
    "compressed_sensing": compressed_sensing,
    "fourier": fourier,
    "hdr": hdr,
    "identity": identity,
    "inpaint_box": box,
    "inpaint_random": random,
    "jpeg": jpeg,
    "limited_angle": limited_angle,
    "low_light": low_light,
    "mixture": mixture_of_two,
    "motion_blur": motion_blur,
    "nonlinear_blur": nonlinear_blur,
    "phase_retrieval": phase_retrieval,
    "radon": radon,
    "super_resolution": super_resolution,
    "varying_blur": varying_blur,
}

__all__ = [
    "OPERATORS",
    "SVD",
    "BlockAverage",
    "Blur",
    "Clip",
    "Combination",
    "Dense",
    "Exposure",
    "FourierSampling",
    "Inpainting",
    "Jpeg",
    "LinearLightBlur",
    "PhaseRetrieval",
    "Radon",
    "Separable",
    "Slices",
    "Stack",
    "VaryingBlur",
    "blur",
    "box",
    "compressed_sensing",
    "dense",
    "fourier",
    "gaussian_kernel",
    "given",
    "given_blur",
    "gray",
    "hdr",
    "identity",
    "is_linear",
    "jpeg",
    "limited_angle",
    "low_light",
    "matrix",
    "mixture_of_two",
    "motion_blur",
    "motion_kernel",
    "nonlinear_blur",
    "phase_retrieval",
    "prox_cg",
    "radon",
    "random",
    "require",
    "separable",
    "slices",
    "stack",
    "super_resolution",
    "varying_blur",
]
