"""Measures of games: mode counts, AM score, KID's three-sample test, path length, precision-recall curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import metrics as m
from genjax.data import load
from genjax.data.stacked import digits_of, unstacked
from genjax.metrics.am_score import unsmoothed


def test_mode_count():
    """KL to an even histogram is 0 where it is even, log(K / n) where n of K modes are hit evenly."""
    even = m.mode_count(np.arange(40) % 20, 20)
    assert even.modes == 20 and even.kl == pytest.approx(0) and even.histogram.tolist() == [2] * 20
    half = m.mode_count(np.arange(40) % 10, 20)
    assert half.modes == 10 and half.kl == pytest.approx(np.log(2))
    assert m.mode_count([3, 3, 3], 20).kl == pytest.approx(np.log(20))
    assert m.class_entropy(np.arange(40) % 10, 20) == pytest.approx(np.log(10)) and m.class_entropy([1, 1], 3) == 0
    with pytest.raises(ValueError, match=r"labels: expected numbers in 0 \.\.\. 2"):
        m.mode_count([3], 3)


def test_stacked_digits_are_labelled_by_their_channels():
    """Channel c of an image is a digit of the set whose own label is the c-th figure of the image's label."""
    stacked, flat = load("stacked_digits", num=50), load("stacked_digits", num=50, flat=True)
    assert stacked.arrays["x"].shape == (50, 8, 8, 3) and stacked.spec.num_classes == 1000
    np.testing.assert_array_equal(unstacked(stacked.arrays["x"]), unstacked(flat.arrays["x"]))
    single = load("digits")
    known = {x.tobytes(): int(y) for x, y in zip(single.arrays["x"], single.arrays["label"])}
    read = np.array([known[x.tobytes()] for x in unstacked(stacked.arrays["x"])])
    np.testing.assert_array_equal(m.stacked_labels(read), stacked.arrays["label"])
    np.testing.assert_array_equal(digits_of(stacked.arrays["label"]), read.reshape(-1, 3))
    test = load("stacked_digits", split="test", num=30)
    assert all(x.tobytes() not in known for x in unstacked(test.arrays["x"]))  # other handwriting
    assert len(np.unique(load("stacked_digits").arrays["label"])) == 1000
    with pytest.raises(ValueError, match="num: expected at least 1"):
        load("stacked_digits", num=0)


def test_am_score():
    """Sure and balanced: 0. Unsure: its entropy. Lacking classes: KL of the data's mean prediction, reference first."""
    sure = 80.0 * np.eye(4)
    assert m.am_score(sure, sure).score == pytest.approx(0, abs=1e-9)
    flat = m.am_score(np.zeros((5, 4)), sure)
    assert flat.entropy == pytest.approx(np.log(4)) and flat.kl == pytest.approx(0, abs=1e-9)
    uneven = np.log(np.array([[0.4, 0.3, 0.2, 0.1]]))
    p = np.array([0.4, 0.3, 0.2, 0.1])
    found = m.am_score(uneven, sure)
    assert found.kl == pytest.approx(np.sum(0.25 * np.log(0.25 / p)))
    assert found.score == pytest.approx(found.kl - np.sum(p * np.log(p)))
    assert m.am_score(sure[:2], sure).kl > 10  # two of four classes never come
    with pytest.raises(ValueError, match=r"am_score: expected logits"):
        m.am_score(np.zeros((3, 4)), np.zeros((3, 5)))


def test_smoothing_of_labels_is_taken_away():
    """Exactly, from the best prediction under smoothed targets; what lies below the floor is nearly certain."""
    p = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    smoothed = np.log(0.9 * p + 0.1 / 3) + 5.0
    np.testing.assert_allclose(np.exp(unsmoothed(smoothed, 0.1)), p, atol=1e-9)
    below = unsmoothed(np.log([[0.98, 0.01, 0.01]]), 0.1)
    assert np.isfinite(below).all() and np.exp(below[0, 0]) > 1 - 1e-9
    with pytest.raises(ValueError, match="smoothing: expected logits"):
        unsmoothed(smoothed, 1.0)


def test_three_sample_test():
    """Under equal models p is even and the score has unit variance; a nearer model is found, from either side."""
    rng = np.random.default_rng(0)
    draw = lambda mean: rng.normal(mean, 1, size=(80, 3))
    equal = [m.three_sample_test(draw(0), draw(0.5), draw(0.5)) for _ in range(300)]
    score = np.array([c.difference / c.std for c in equal])
    p = np.array([c.p_value for c in equal])
    assert abs(score.mean()) < 0.2 and 0.85 < score.std() < 1.15
    assert 0.02 < np.mean(p < 0.05) < 0.1 and 0.4 < p.mean() < 0.6
    assert m.three_sample_test(draw(0), draw(1.0), draw(0.0)).p_value < 0.01
    assert m.three_sample_test(draw(0), draw(0.0), draw(1.0)).p_value > 0.99
    # in many dimensions pairs of samples rule the variance: a row's mean holds them too, once too often
    wide = lambda scale: scale * rng.standard_normal((60, 16))
    equal = [m.three_sample_test(wide(1.0), wide(1.15), wide(1.15)) for _ in range(300)]
    assert 0.88 < np.std([c.difference for c in equal]) / np.mean([c.std for c in equal]) < 1.15
    x, y, z = draw(0), draw(0.5), draw(0)
    exact = m.polynomial_mmd2(x, y) - m.polynomial_mmd2(x, z)
    assert m.three_sample_test(x, y, z).difference == pytest.approx(exact, rel=1e-9)
    with pytest.raises(ValueError, match="three sets of one shape"):
        m.three_sample_test(x, y, z[:5])


def test_path_length_of_a_linear_generator():
    """G(z) = z A along lines between z ~ N(0, I): E |(b - a) A|^2 = 2 |A|^2, whatever eps."""
    a = jnp.array([[1.0, 2.0], [0.0, 3.0], [1.0, 0.0]])
    sample = lambda keys, n: jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
    distance = lambda x, y: jnp.sum((x - y) ** 2, axis=-1)
    measure = lambda **options: m.latent_path_length(
        jax.random.key(0), lambda z: z @ a, sample, distance, n=4000, eps=1e-2, chunk=1000, **options
    )
    assert measure(path="lerp", trim=0.0) == pytest.approx(2 * float(jnp.sum(a**2)), rel=0.06)
    assert 0 < measure(path="slerp", trim=0.01) < 4 * float(jnp.sum(a**2))
    with pytest.raises(ValueError, match="path: expected 'slerp' or 'lerp'"):
        measure(path="line")


def test_slerp_keeps_to_the_sphere():
    a, b = jnp.array([[3.0, 0.0], [0.0, 2.0]]), jnp.array([[0.0, 3.0], [2.0, 0.0]])
    middle = m.slerp(a, b, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(np.linalg.norm(middle, axis=1), [3.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(m.slerp(a, b, jnp.zeros(2)), a, atol=1e-5)
    np.testing.assert_allclose(m.slerp(a, b, jnp.ones(2)), b, atol=1e-5)


def test_precision_recall_curve():
    """Equal histograms reach (1, 1); fakes on half of the states have full precision and half the recall."""
    p = np.ones(10)
    same = m.prd_of_histograms(p, p)
    assert same.f_recall == pytest.approx(1, abs=0.01) and same.f_precision == pytest.approx(1, abs=0.01)
    half = m.prd_of_histograms(p, np.repeat([1.0, 0.0], 5))
    assert half.precision.max() == pytest.approx(1, abs=1e-3) and half.recall.max() == pytest.approx(0.5, abs=1e-3)
    assert half.f_precision > 0.9 > 0.6 > half.f_recall
    back = m.prd_of_histograms(np.repeat([1.0, 0.0], 5), p)  # the players exchanged
    assert back.f_recall == pytest.approx(half.f_precision, abs=0.01)
    apart = m.prd_of_histograms(np.repeat([1.0, 0.0], 5), np.repeat([0.0, 1.0], 5))
    assert apart.f_recall == 0 and apart.f_precision == 0


def test_precision_recall_of_features():
    """Dropping three of four clusters costs recall, adding far ones precision."""
    rng = np.random.default_rng(0)
    centers = 8 * np.eye(4)
    draw = lambda kinds: centers[rng.choice(kinds, 300)] + rng.normal(size=(300, 4))
    options = {"clusters": 8, "repeats": 2, "angles": 201}
    good, dropped = m.prd(draw([0, 1]), draw([0, 1]), **options), m.prd(draw([0, 1]), draw([0]), **options)
    strange = m.prd(draw([0]), draw([0, 1]), **options)
    assert good.f_recall > 0.85 and good.f_precision > 0.85
    assert dropped.f_recall < 0.7 < dropped.f_precision and strange.f_precision < 0.7 < strange.f_recall
    with pytest.raises(ValueError, match="clusters: expected 2 to"):
        m.prd(draw([0]), draw([0]), clusters=1)
