"""Operators against what they stand for: analytic shadows, other programs' codecs and filters, symmetries."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from PIL import Image

from genjax.inverse import operators as O
from genjax.inverse.operators.jpeg import quantization_table
from genjax.inverse.operators.super_resolution import resize_matrix

# one program a call instead of one an operation
forward = jax.jit(lambda operator, *args: operator.forward(*args))
adjoint = jax.jit(lambda operator, *args: operator.adjoint(*args))
prox = jax.jit(lambda operator, *args: operator.prox(*args))
x_init = jax.jit(lambda operator, *args: operator.x_init(*args))


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def disc(side, radius, x, y, fine=8):
    """A disc around (x, y) from the image's middle, each pixel its covered share."""
    place = (np.arange(side * fine) + 0.5) / fine - side / 2
    inside = (place[None] - x) ** 2 + (place[:, None] - y) ** 2 < radius**2
    return inside.reshape(side, fine, side, fine).mean(axis=(1, 3))


def test_radon_of_a_disc():
    # exact strip integrals; a half-bin shift or a wrong sense of rotation is off by 20 % of the peak
    side, radius, x, y = 32, 9.3, 2.5, -3.25
    operator = O.radon((side, side, 1), views=24)
    image = jnp.asarray(disc(side, radius, x, y), jnp.float32)[None, ..., None]
    shadows, back = jax.jit(lambda op, image: (forward(op, image), op.fbp(forward(op, image))))(operator, image)
    edges = np.arange(operator.bins + 1) - operator.bins / 2
    for angle, shadow in zip(np.asarray(operator.angles), np.asarray(shadows[0, ..., 0])):
        s = np.clip((edges - x * np.cos(angle) - y * np.sin(angle)) / radius, -1, 1)
        area = radius**2 * (s * np.sqrt(1 - s**2) + np.arcsin(s))
        expected = np.diff(area)
        # what is left is the disc's edge, spread over its pixels
        assert np.abs(shadow - expected).max() < 0.06 * expected.max()
        assert np.sqrt(np.mean((shadow - expected) ** 2)) < 0.015 * expected.max()
    np.testing.assert_allclose(jnp.sum(shadows, axis=(0, 2, 3)), float(image.sum()), rtol=1e-5)
    whole, none = disc(side, radius - 2, x, y) == 1, disc(side, radius + 2, x, y) == 0
    middle = disc(side, 14, 0, 0) == 1  # the corners are seen by few detectors' worth of views
    assert abs(float(back[0, ..., 0][whole].mean()) - 1) < 0.02
    assert abs(float(back[0, ..., 0][none & middle].mean())) < 0.02


def test_radon_of_one_pixel_is_its_exact_shadow(x64):
    # each bin's share against the pixel cut into 400 x 400 points: catches any error of the trapezoid or its place
    operator = O.radon((5, 6, 1), views=7, start=3.0)
    shadow = forward(operator, jnp.zeros((1, 5, 6, 1)).at[0, 1, 4, 0].set(1))[0, ..., 0]
    inside = (np.arange(400) + 0.5) / 400 - 0.5
    x, y = 4 - 2.5 + inside[None], 1 - 2 + inside[:, None]
    for angle, view in zip(np.asarray(operator.angles), np.asarray(shadow)):
        place = (x * np.cos(angle) + y * np.sin(angle)).reshape(-1) + operator.bins / 2
        expected = np.bincount(np.floor(place).astype(int), minlength=operator.bins) / 160000
        np.testing.assert_allclose(view, expected, atol=2e-3)


def test_radon_at_right_angles_sums_rows_and_columns(x64):
    operator = O.radon((4, 6, 1), views=2, bins=8)
    x = normal(0, 2, 4, 6, 1)
    y = forward(operator, x)
    np.testing.assert_allclose(y[:, 0, 1:7], jnp.sum(x, axis=1), atol=1e-5)
    np.testing.assert_allclose(y[:, 1, 2:6], jnp.sum(x, axis=2), atol=1e-5)
    # a detector too short for the image loses the outer strips and shifts nothing
    short = forward(O.radon((4, 6, 1), views=2, bins=4), x)
    np.testing.assert_allclose(short[:, 0], y[:, 0, 2:6], atol=1e-12)


def test_slices_are_images(x64):
    volume = O.radon((3, 5, 6, 1), views=4)
    image = O.radon((5, 6, 1), views=4)
    x = normal(0, 2, 3, 5, 6, 1)
    y = forward(volume, x)
    assert y.shape == (2, *volume.out_shape)
    np.testing.assert_allclose(y[1], forward(image, x[1]), atol=1e-12)
    moved = prox(volume, jnp.zeros_like(x), y, jnp.asarray([0.1, 1.0]))
    np.testing.assert_allclose(moved[1], prox(image, jnp.zeros_like(x[1]), y[1], 1.0), atol=1e-9)


def test_bicubic_is_that_of_pillow():
    # the same kernel and antialiasing as Pillow's away from the edges (which it cuts and we reflect)
    x = np.random.default_rng(0).normal(size=(32, 24)).astype(np.float32)
    for factor in (2, 4):
        expected = np.asarray(Image.fromarray(x).resize((24 // factor, 32 // factor), 3))
        got = forward(O.super_resolution((32, 24, 1), factor, "bicubic"), jnp.asarray(x)[None, ..., None])[0, ..., 0]
        np.testing.assert_allclose(got[2:-2, 2:-2], expected[2:-2, 2:-2], atol=2e-6)


def test_bicubic_keeps_constants_mass_and_quadratics():
    # partition of unity over outputs and inputs; Keys' kernel with a = -1/2 reproduces parabolas up to a constant
    n, factor = 40, 4
    matrix = resize_matrix(n, n // factor)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=0), 1 / factor, atol=1e-12)
    centers = (np.arange(n // factor) + 0.5) * factor - 0.5
    i, inner = np.arange(n), slice(2, -2)
    np.testing.assert_allclose((matrix @ i)[inner], centers[inner], atol=1e-12)
    square = (matrix @ i**2 - centers**2)[inner]
    np.testing.assert_allclose(square, square[0], atol=1e-10)


def test_circular_blur_shifts_and_adds(x64):
    # a kernel with one tap off the middle moves the image by it; brightness is kept
    kernel = np.zeros((3, 5))
    kernel[0, 4] = 1  # one up, two to the right of the middle
    x = normal(0, 2, 6, 7, 2)
    np.testing.assert_allclose(
        forward(O.given_blur(kernel, (6, 7, 2)), x), jnp.roll(x, (-1, 2), axis=(1, 2)), atol=1e-12
    )
    for operator in (O.blur((6, 7, 2)), O.blur((6, 7, 2), boundary="reflect"), O.motion_blur((6, 7, 2), 3.0, bend=1.0)):
        np.testing.assert_allclose(forward(operator, jnp.ones((1, 6, 7, 2))), 1, atol=1e-12)
        assert float(jnp.var(forward(operator, x))) < 0.8 * float(jnp.var(x))
    # all weight on one kernel: the varying blur is the plain one
    plain = O.blur((6, 7, 2), 0.7)
    weights = jnp.stack([jnp.ones((6, 7)), jnp.zeros((6, 7))])
    varying = O.VaryingBlur(jnp.stack([plain.kernel, plain.kernel[::-1]]), weights, (6, 7, 2))
    np.testing.assert_allclose(forward(varying, x), forward(plain, x), atol=1e-12)


@pytest.mark.parametrize("angle, bend", [(0.0, 0.0), (90.0, 0.0), (37.0, 0.0), (10.0, 2.0)])
def test_motion_kernel(angle, bend):
    # unit mass around the middle, as long as the path says: variance length^2 / 12 along a straight one
    kernel = O.motion_kernel(9.0, angle, bend)
    place = np.arange(len(kernel)) - len(kernel) // 2
    across, along = kernel.sum(axis=1), kernel.sum(axis=0)
    assert kernel.min() >= 0
    np.testing.assert_allclose([kernel.sum(), across @ place, along @ place], [1, 0, 0], atol=1e-9)
    total = across @ place**2 + along @ place**2
    if bend == 0:
        np.testing.assert_allclose(total, 81 / 12, atol=0.4)
        np.testing.assert_allclose(along @ place**2, 81 / 12 * np.cos(np.deg2rad(angle)) ** 2, atol=0.3)
    else:
        assert total < 81 / 12


def test_fourier_sampling_is_unitary(x64):
    x = normal(0, 2, 6, 5, 1)
    full = O.fourier((6, 5, 1), acceleration=1.0)
    y = forward(full, x)
    np.testing.assert_allclose(jnp.linalg.norm(y), jnp.linalg.norm(x), rtol=1e-12)
    np.testing.assert_allclose(adjoint(full, y), x, atol=1e-12)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], np.fft.fft2(x[..., 0]) / np.sqrt(30), atol=1e-12)
    operator = O.fourier((64, 64, 2), acceleration=4.0, center=0.1, complex_image=True)
    assert operator.mask.mean() == 0.25 and bool(operator.mask[:, :3].all() & operator.mask[:, -3:].all())
    # of a complex image A A^T = I on what is measured
    y = normal(1, 1, 64, 64, 2) * operator.support()[None]
    np.testing.assert_allclose(forward(operator, adjoint(operator, y)), y, atol=1e-12)
    # an imaginary image is told from a real one
    one = jnp.zeros((1, 64, 64, 2)).at[0, 3, 4, 1].set(1)
    full = O.fourier((64, 64, 2), 1.0, complex_image=True)
    np.testing.assert_allclose(adjoint(full, forward(full, one)), one, atol=1e-12)


def test_phase_retrieval_forgets_what_it_should(x64):
    # blind to half a turn, not to the image; energy kept; the start has the right mean
    operator = O.phase_retrieval((6, 5, 1))
    x = jnp.tanh(normal(0, 2, 6, 5, 1))
    y = forward(operator, x)
    np.testing.assert_allclose(forward(operator, jnp.flip(x, axis=(1, 2))), y, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(y**2), jnp.sum(((x + 1) / 2) ** 2), rtol=1e-12)
    assert float(jnp.abs(forward(operator, x[::-1]) - y).max()) > 0.1
    np.testing.assert_allclose(jnp.mean(x_init(operator, y), axis=(1, 2, 3)), jnp.mean(x, axis=(1, 2, 3)), atol=1e-12)
    # finite gradient where the magnitude is zero
    dark = jax.grad(lambda x: jnp.sum(forward(operator, x)))(-jnp.ones((1, 6, 5, 1)))
    assert bool(jnp.isfinite(dark).all())


def coded(array, quality):
    """What the installed codec makes of bytes, and its tables in natural order."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "jpeg", quality=quality, subsampling=0)
    image = Image.open(buffer)
    return np.asarray(image).astype(float), image.quantization


@pytest.mark.parametrize("mode, quality", [("L", 10), ("L", 75), ("RGB", 10)])
def test_jpeg_is_that_of_the_codec(mode, quality):
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(64, 48, 3)) * 20 + 128 + 40 * np.sin(np.arange(48) / 4)[None, :, None]
    array = np.clip(rough, 60, 200).astype(np.uint8)
    array = array if mode == "RGB" else array[..., 0]
    decoded, tables = coded(array, quality)
    np.testing.assert_array_equal(np.sort(tables[0]), np.sort(quantization_table(quality).reshape(-1)))
    x = (array.reshape(1, 64, 48, -1).astype(np.float32) - 128) / 127.5
    operator = O.jpeg(x.shape[1:], quality)
    y = np.clip(np.round(np.asarray(forward(operator, x))[0] * 127.5 + 128), 0, 255).reshape(decoded.shape)
    # a coefficient half way between two levels may fall either way in the codec's whole-number arithmetic (which
    # rounds colours too): only blocks without one are compared, to the rounding of bytes
    z = np.asarray(operator.coefficients(x))[0]
    sure = (np.abs(np.abs(z - np.floor(z)) - 0.5) > (0.03 if mode == "RGB" else 0.01)).all(axis=(2, 3, 4))
    assert sure.mean() > 0.2
    error = np.abs(y - decoded).reshape(8, 8, 6, 8, -1).max(axis=(1, 3, 4))
    assert error[sure].max() <= 2


def test_jpeg_twice_is_jpeg_once_and_gradients(x64):
    operator = O.jpeg((8, 16, 3), quality=20)
    x = jnp.tanh(normal(0, 2, 8, 16, 3))
    y = forward(operator, x)
    np.testing.assert_allclose(forward(operator, y), y, atol=1e-12)
    assert float(jnp.abs(y - x).max()) > 0.1
    levels = operator.coefficients(y)
    np.testing.assert_allclose(levels, jnp.round(levels), atol=1e-9)
    tangent = normal(1, 2, 8, 16, 3)
    slope = jax.jvp(lambda x: forward(operator, x), (x,), (tangent,))[1]
    np.testing.assert_allclose(slope, tangent, atol=1e-9)
    hard = O.jpeg((8, 16, 3), quality=20, straight_through=False)
    np.testing.assert_allclose(forward(hard, x), y, atol=1e-12)
    np.testing.assert_allclose(jax.jvp(lambda x: forward(hard, x), (x,), (tangent,))[1], 0)


def test_sums_of_images_and_channels(x64):
    x = normal(0, 3, 2, 4, 5, 3)
    np.testing.assert_allclose(
        forward(O.mixture_of_two((2, 4, 5, 3), 0.3), x), 0.3 * x[:, 0] + 0.7 * x[:, 1], atol=1e-12
    )
    grey = forward(O.gray((4, 5, 3)), x[:, 0])
    np.testing.assert_allclose(grey[..., 0], x[:, 0] @ np.array([0.299, 0.587, 0.114]), atol=1e-12)


def test_cameras(x64):
    x = jnp.tanh(normal(0, 2, 8, 8, 1))
    np.testing.assert_allclose(forward(O.hdr((8, 8, 1), 2.0), x), jnp.clip(2 * x, -1, 1), atol=1e-12)
    # the GDP degradation y = f x + M acts on [0, 1]
    dim = O.low_light((8, 8, 1), 0.3, 0.1)
    np.testing.assert_allclose((forward(dim, x) + 1) / 2, 0.3 * (x + 1) / 2 + 0.1, atol=1e-12)
    for operator in (dim, O.low_light((8, 8, 1), 0.3, 0.1, 2.2), O.low_light((8, 8, 1), 0.8, 0.1, saturate=True)):
        np.testing.assert_allclose(x_init(operator, forward(operator, x)), x, atol=1e-9)
    # with gamma 1 linear-light blur is the plain one; constants stay with any gamma; bright spots spread more
    kernel = O.motion_kernel(5.0, 30.0)
    plain, linear = O.given_blur(kernel, (8, 8, 1)), O.nonlinear_blur((8, 8, 1), 5.0, 30.0, 0.0, gamma=1.0)
    np.testing.assert_allclose(forward(linear, x), forward(plain, x), atol=1e-10)
    camera = O.nonlinear_blur((8, 8, 1), 5.0, 30.0, 0.0)
    np.testing.assert_allclose(forward(camera, jnp.full((1, 8, 8, 1), 0.3)), 0.3, atol=1e-9)
    light = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(camera.inverse_response(camera.response(light)), light, atol=1e-12)
    assert float(jnp.mean(forward(camera, x) - forward(plain, x))) > 0.02  # r is concave: Jensen
    check_grads(lambda x: forward(camera, x), (0.9 * x[:1],), order=1, modes=["rev"])
    assert bool(jnp.isfinite(jax.grad(lambda x: jnp.sum(forward(camera, x)))(-jnp.ones((1, 8, 8, 1)))).all())


def test_blind_blur(x64):
    # phi is logits on the simplex: the known kernel's logarithm gives the known blur; gradients are right
    operator = O.blur((8, 8, 1), 0.8, size=3)
    x, phi = normal(0, 2, 8, 8, 1), jnp.log(operator.kernel)[None] + jnp.asarray([0.0, 2.5])[:, None, None]
    np.testing.assert_allclose(forward(operator, x, phi), forward(operator, x), atol=1e-12)
    np.testing.assert_allclose(jnp.sum(operator.kernel_of(normal(1, 2, 3, 3)), axis=(1, 2)), 1, atol=1e-12)
    free = operator.phi_init(2)
    assert free.shape == (2, 3, 3)
    np.testing.assert_allclose(operator.kernel_of(free), 1 / 9, atol=1e-12)
    y, other = forward(operator, x), normal(2, 2, 8, 8, 1)
    np.testing.assert_allclose(
        jnp.vdot(forward(operator, x, free), other), jnp.vdot(x, adjoint(operator, other, free)), rtol=1e-10
    )
    loss = jax.jit(lambda phi: jnp.sum((forward(operator, x, phi) - y) ** 2))
    slope = jax.jit(jax.grad(loss))
    check_grads(loss, (normal(3, 2, 3, 3),), order=1, modes=["rev"])
    np.testing.assert_allclose(slope(phi), 0, atol=1e-10)
    assert float(jnp.abs(slope(free)).max()) > 0.01
    with pytest.raises(ValueError, match="phi: expected logits"):
        forward(operator, x, jnp.zeros((2, 5, 5)))


def test_blind_exposure(x64):
    # one gain and offset a sample, or a map; gradients are right and vanish at the truth
    operator = O.low_light((4, 4, 1), 0.25, 0.05)
    x = jnp.tanh(normal(0, 2, 4, 4, 1))
    true = {"log_gain": jnp.log(jnp.asarray([0.25, 0.5])), "offset": jnp.asarray([0.05, 0.1]).reshape(2, 1, 1, 1)}
    y = forward(operator, x, true)
    np.testing.assert_allclose(y[0], forward(operator, x)[0], atol=1e-12)
    np.testing.assert_allclose((y[1] + 1) / 2, 0.5 * (x[1] + 1) / 2 + 0.1, atol=1e-12)
    np.testing.assert_allclose(x_init(operator, y, true), x, atol=1e-9)
    loss = jax.jit(lambda phi: jnp.sum((forward(operator, x, phi) - y) ** 2))
    start = operator.phi_init(2)
    slope = jax.jit(jax.grad(loss))
    check_grads(loss, (start,), order=1, modes=["rev"])
    assert all(float(jnp.abs(g).min()) > 0.01 for g in jax.tree.leaves(slope(start)))
    assert all(float(jnp.abs(g).max()) < 1e-10 for g in jax.tree.leaves(slope(true)))
    chart = forward(operator, x, {"log_gain": jnp.zeros(2), "offset": 0.01 * normal(1, 2, 4, 4, 1)})
    assert chart.shape == x.shape
    with pytest.raises(ValueError, match="phi: expected a dict"):
        forward(operator, x, {"gain": jnp.ones(2)})


def test_stack_of_exposures(x64):
    operators = O.stack([O.low_light((4, 4, 1), gain, 0.0, saturate=True) for gain in (0.5, 1.0, 2.0)])
    x = jnp.tanh(normal(0, 2, 4, 4, 1))
    y = forward(operators, x)
    assert y.shape == (2, 3, 4, 4, 1) == (2, *operators.out_shape)
    np.testing.assert_allclose(y[:, 2], forward(operators.operators[2], x), atol=1e-12)
    phi = operators.phi_init(2)
    np.testing.assert_allclose(forward(operators, x, phi)[:, 0], forward(operators, x)[:, 1], atol=1e-12)
    assert x_init(operators, y).shape == x.shape
