"""Every operator against its dense matrix in double precision, and its conduct: batches, shapes, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.inverse import operators as O
from genjax.inverse.operators import OPERATORS, base

SHAPE = (8, 8, 2)
# name -> (constructor, shape, numbers): all of OPERATORS, then forms of them that have their own formulas
CASES = {name: (constructor, SHAPE, {}) for name, constructor in OPERATORS.items()}
CASES |= {
    "jpeg": (O.jpeg, (8, 16, 1), {"quality": 20}),
    "jpeg_colour": (O.jpeg, (8, 8, 3), {"quality": 20}),
    "mixture": (O.mixture_of_two, (2, 4, 4, 2), {"ratio": 0.3}),
    "radon": (O.radon, (7, 8, 2), {"views": 5}),
    "radon_slices": (O.radon, (2, 5, 6, 1), {"views": 4}),
    "limited_angle": (O.limited_angle, SHAPE, {"views": 4, "span": 60.0}),
    "colorization_rgb": (O.gray, (4, 6, 3), {}),
    "blur_uneven": (O.blur, (7, 10, 1), {"std": 0.8}),
    "blur_reflect": (O.blur, (7, 10, 1), {"std": 0.8, "boundary": "reflect"}),
    "bicubic": (O.super_resolution, (8, 12, 1), {"kernel": "bicubic"}),
    "super_resolution_4": (O.super_resolution, (8, 12, 1), {"factor": 4}),
    "fourier_points": (O.fourier, (7, 8, 1), {"pattern": "points"}),
    "fourier_complex": (O.fourier, (6, 7, 4), {"complex_image": True, "pattern": "points"}),
    "low_light_gamma": (O.low_light, SHAPE, {"gamma": 2.2}),
    "overdetermined": (O.compressed_sensing, (3, 3, 1), {"fraction": 2.0}),
}
LINEAR_NAMES = {
    "blur", "blur_reflect", "blur_uneven", "bicubic", "colorization", "colorization_rgb", "compressed_sensing",
    "fourier", "fourier_complex", "fourier_points", "identity", "inpaint_box", "inpaint_random", "limited_angle",
    "mixture", "motion_blur", "overdetermined", "radon", "radon_slices", "super_resolution", "super_resolution_4",
    "varying_blur",
}  # fmt: skip
SPECTRAL_NAMES = LINEAR_NAMES - {"limited_angle", "radon", "radon_slices", "varying_blur"}
LINEAR, SPECTRAL = sorted(LINEAR_NAMES), sorted(SPECTRAL_NAMES)


def build(name):
    constructor, shape, numbers = CASES[name]
    return constructor(shape, **numbers)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_lists_are_complete():
    # an operator that gains or loses its adjoint or svd must not slip out of the tests below
    assert {name for name in CASES if base.is_linear(build(name))} == LINEAR_NAMES
    assert {name for name in CASES if hasattr(build(name), "svd")} == SPECTRAL_NAMES
    assert set(OPERATORS) <= set(CASES)


@pytest.mark.parametrize("name", LINEAR)
def test_adjoint_and_linearity(name, x64):
    # <A x, y> = <x, A^T y> and A(2 x1 - 3 x2) = 2 A x1 - 3 A x2, both to rounding
    operator = build(name)
    x, x2, y = (normal(i, 2, *shape) for i, shape in enumerate([operator.in_shape] * 2 + [operator.out_shape]))

    @jax.jit
    def answers(operator, x, x2, y):
        both = operator.forward(2 * x - 3 * x2) - 2 * operator.forward(x) + 3 * operator.forward(x2)
        return operator.forward(x), operator.adjoint(y), both

    ax, aty, both = answers(operator, x, x2, y)
    assert ax.shape == y.shape and aty.shape == x.shape
    for i in range(2):
        left, right = jnp.vdot(ax[i], y[i]), jnp.vdot(x[i], aty[i])
        np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(both, 0, atol=1e-12)
    assert jnp.linalg.norm(ax) > 0.1


@pytest.mark.parametrize("name", SPECTRAL)
def test_svd_and_pinv(name, x64):
    # U diag(s) V^T is the matrix, V orthogonal, U orthonormal where s > 0; pinv is numpy's
    operator = build(name)
    a, dim = np.asarray(base.matrix(operator)), base.size(operator.in_shape)

    @jax.jit
    def answers(operator):
        svd = operator.svd()
        eye_x, eye_y = jnp.eye(dim), jnp.eye(base.size(operator.out_shape))
        v = svd.v(eye_x).reshape(dim, dim).T
        vt = svd.vt(eye_x.reshape(dim, *operator.in_shape)).T
        u = base.flat(svd.u(eye_x)).T
        ut = svd.ut(eye_y.reshape(-1, *operator.out_shape)).T
        return v, vt, u, ut, svd.singular, base.flat(operator.pinv(eye_y.reshape(-1, *operator.out_shape))).T

    v, vt, u, ut, s, pinv = (np.asarray(out) for out in answers(operator))
    np.testing.assert_allclose(v @ v.T, np.eye(dim), atol=1e-12)
    np.testing.assert_allclose(v, vt.T, atol=1e-12)
    np.testing.assert_allclose((u * s) @ v.T, a, atol=1e-12)
    np.testing.assert_allclose((v * s) @ ut, a.T, atol=1e-12)
    on = s > 1e-9
    np.testing.assert_allclose(u.T[on] @ u[:, on], np.eye(on.sum()), atol=1e-9)
    np.testing.assert_allclose(np.sort(s)[-min(a.shape) :], np.sort(np.linalg.svd(a, compute_uv=False)), atol=1e-8)
    assert np.linalg.norm(a @ pinv @ a - a) < 1e-3 * np.linalg.norm(a)
    cut = getattr(operator, "tol", 1e-5)
    np.testing.assert_allclose(pinv, np.linalg.pinv(a, rcond=cut), atol=1e-8)


@pytest.mark.parametrize("name", LINEAR)
def test_prox_is_the_minimizer(name, x64):
    # rho per sample; catches a wrong scale of rho, and samples solved together
    operator = build(name)
    a = np.asarray(base.matrix(operator))
    x0, y, rho = normal(0, 2, *operator.in_shape), normal(1, 2, *operator.out_shape), jnp.asarray([0.07, 2.0])
    x = base.flat(jax.jit(lambda operator, *args: operator.prox(*args))(operator, x0, y, rho))
    for i in range(2):
        normal_matrix = a.T @ a + float(rho[i]) * np.eye(a.shape[1])
        expected = np.linalg.solve(normal_matrix, a.T @ np.ravel(y[i]) + float(rho[i]) * np.ravel(x0[i]))
        # conjugate gradients stop at a relative residual of 1e-6
        np.testing.assert_allclose(x[i], expected, atol=1e-9 if name in SPECTRAL_NAMES else 5e-4)


@pytest.mark.parametrize("name", SPECTRAL)
def test_prox_at_rho_zero_is_the_nearest_consistent_point(name):
    # in single precision, where a singular value of 0 must not become a division by rounding
    operator = build(name)
    x_true, x0 = (normal(i, 2, *operator.in_shape).astype(jnp.float32) for i in (0, 1))

    @jax.jit
    def answers(operator, x_true, x0):
        y, svd = operator.forward(x_true), operator.svd()
        x = operator.prox(x0, y, 0.0)
        return y, operator.forward(x), svd.vt(x - x0), svd.singular

    y, again, move, s = answers(operator, x_true, x0)
    np.testing.assert_allclose(again, y, atol=1e-4)
    unseen = np.asarray(s) <= 1e-5 * float(s.max())
    np.testing.assert_allclose(move[:, unseen], 0, atol=1e-2 if unseen.any() else 0)


@pytest.mark.parametrize("name", sorted(CASES))
def test_conduct(name):
    # one image's measurement does not depend on its neighbours; types and shapes as said; start is in x's space
    operator = build(name)
    assert isinstance(operator.in_shape, tuple) and isinstance(operator.out_shape, tuple)
    x = jnp.tanh(normal(0, 3, *operator.in_shape)).astype(jnp.float32)

    @jax.jit
    def answers(operator, x):
        y = operator.forward(x)
        gradient = jax.grad(lambda x: jnp.sum(operator.forward(x) ** 2))(x)
        return y, operator.x_init(y), gradient

    y, start, gradient = answers(operator, x)
    assert y.shape == (3, *operator.out_shape) and y.dtype == x.dtype and start.dtype == x.dtype
    assert start.shape == x.shape
    assert bool(jnp.isfinite(y).all() & jnp.isfinite(start).all() & jnp.isfinite(gradient).all())
    assert float(jnp.abs(gradient).max()) > 0
    other = answers(operator, x.at[1:].multiply(-0.5))
    np.testing.assert_allclose(other[0][0], y[0], atol=1e-6)
    np.testing.assert_allclose(other[1][0], start[0], atol=1e-5)
    with pytest.raises(ValueError, match=r"^x: expected shape"):
        operator.forward(x[..., :-1])


def test_conjugate_gradients_agree_with_the_closed_form(x64):
    operator = O.motion_blur((8, 8, 1))
    x0, y = normal(0, 3, *operator.in_shape), normal(1, 3, *operator.out_shape)
    rho = jnp.asarray([0.01, 0.1, 1.0])
    closed, iterated = jax.jit(lambda op, *a: (op.prox(*a), O.prox_cg(op, *a, tol=1e-12)))(operator, x0, y, rho)
    np.testing.assert_allclose(iterated, closed, atol=1e-8)


def test_numbers_are_leaves():
    # variants of one operator share a compiled program: strengths, masks, kernels and tables are arguments
    forward = jax.jit(lambda operator, x: operator.forward(x))
    x = jnp.zeros((1, 8, 8, 1))
    variants = [
        [O.hdr((8, 8, 1), gain) for gain in (2, 3.0)],
        [O.low_light((8, 8, 1), gain, 0) for gain in (0.5, 1)],
        [O.random((8, 8, 1), missing) for missing in (0.2, 0.7)],
        [O.blur((8, 8, 1), std, size=5) for std in (0.5, 1.0)],
        [O.jpeg((8, 8, 1), quality) for quality in (5, 50)],
    ]
    for count, pair in enumerate(variants):
        for operator in pair:
            forward(operator, x)
        assert forward._cache_size() == count + 1


BAD = [
    (lambda: O.given(np.zeros((4, 4))), "mask: expected at least one measured"),
    (lambda: O.given(np.full((4, 4), 0.5)), "mask: expected zeros and ones"),
    (lambda: O.given(np.ones((4, 3)), (4, 4, 1)), "mask: expected shape"),
    (lambda: O.box(SHAPE, size=1.0), "size: expected in"),
    (lambda: O.box(SHAPE, top=7), "top, left: expected a box"),
    (lambda: O.random(SHAPE, missing=1.0), "missing: expected in"),
    (lambda: O.super_resolution(SHAPE, factor=3), "factor: expected a divisor"),
    (lambda: O.super_resolution(SHAPE, kernel="cubic"), "kernel: expected 'average'"),
    (lambda: O.compressed_sensing(SHAPE, fraction=0), "fraction: expected > 0"),
    (lambda: O.dense(np.full((2, 2), np.nan)), "matrix: expected finite"),
    (lambda: O.dense(np.ones((2, 3)), (2, 2)), "in_shape: expected 3 elements"),
    (lambda: O.blur(SHAPE, std=0), "std: expected > 0"),
    (lambda: O.blur(SHAPE, boundary="zero"), "boundary: expected"),
    (lambda: O.motion_blur(SHAPE, length=40.0), "kernel: expected"),
    (lambda: O.gray((4, 4, 1)), "shape: expected at least two channels"),
    (lambda: O.gray(SHAPE, (0, 0)), "weights: expected"),
    (lambda: O.mixture_of_two(SHAPE), "shape: expected \\(2, height"),
    (lambda: O.fourier(SHAPE, acceleration=0.5), "acceleration, center: expected"),
    (lambda: O.fourier((4, 4, 3), complex_image=True), "shape: expected an even number"),
    (lambda: O.phase_retrieval(SHAPE, 0.5), "oversampling: expected"),
    (lambda: O.radon(SHAPE, span=270.0), "views, span: expected"),
    (lambda: O.slices(O.hdr(SHAPE), 2), "operator: slices needs adjoint and prox"),
    (lambda: O.stack([O.hdr(SHAPE), O.hdr((4, 4, 1))]), "operators: expected"),
    (lambda: O.hdr(SHAPE, gain=0), "gain: expected > 0"),
    (lambda: O.low_light(SHAPE, gamma=0.5), "gain, gamma: expected"),
    (lambda: O.nonlinear_blur(SHAPE, length=40.0), "length: expected"),
    (lambda: O.jpeg((9, 8, 1)), "shape: expected sides"),
    (lambda: O.jpeg((8, 8, 1), quality=0), "quality: expected"),
    (lambda: O.hdr(SHAPE).forward(jnp.zeros((1, *SHAPE)), phi=1.0), "phi: Clip has no unknown"),
    (lambda: O.require(O.hdr(SHAPE), ("svd",), "ddrm"), "operator: ddrm needs svd, which Clip does not have"),
]


@pytest.mark.parametrize("make, message", BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
