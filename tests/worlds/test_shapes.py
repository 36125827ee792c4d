"""Rendered shapes: geometry against closed forms, consistency of masks, boxes and depth, exact readers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.worlds import shapes, shapes_reader, shapes_views

render = jax.jit(shapes.render, static_argnums=1)
visible = jax.jit(shapes.visible, static_argnums=1)
recolored = jax.jit(shapes_views.recolored, static_argnums=1)
draw = jax.jit(shapes.draw_factors, static_argnums=2)
scene = partial(jax.jit, static_argnums=(2, 3))(shapes.draw_scene)
ALL = shapes.make_ranges(textures=shapes.TEXTURES, background=(0.0, 1.0))


@pytest.fixture(scope="module")
def single():
    return draw(jax.random.key(0), jnp.arange(96), ALL)


@pytest.fixture(scope="module")
def scenes():
    return scene(jax.random.key(1), jnp.arange(32), (1, 4), shapes.DEFAULT)


@pytest.fixture(scope="module")
def crowd():
    """Scenes whose objects overlap."""
    f = scene(jax.random.key(2), jnp.arange(60), 3, shapes.DEFAULT)
    return f._replace(center=0.35 + 0.3 * f.center, size=2 * f.size)


def _at(shape, angle=0.3, size=0.25, center=(0.47, 0.52)):
    one = draw(jax.random.key(0), jnp.arange(1), shapes.DEFAULT)
    fill = lambda v, like: jnp.full(like.shape, v, like.dtype)
    return one._replace(
        shape=fill(shape, one.shape),
        angle=fill(angle, one.angle),
        size=fill(size, one.size),
        center=jnp.asarray(center, jnp.float32).reshape(1, 1, 2),
    )


@pytest.mark.parametrize("shape", range(4))
def test_area_centre_and_turn(shape):
    # every shape of one size has the area of the disk of that radius; its centroid is its centre; a turn
    # by the period changes nothing and a turn by half a period does
    f = _at(shape)
    cover = np.asarray(shapes.coverage(f, 256)[0, 0], np.float64)
    assert cover.mean() == pytest.approx(np.pi * 0.25**2, rel=2e-3)
    grid = np.asarray(shapes.pixel_grid(256))
    np.testing.assert_allclose((cover[..., None] * grid).sum((0, 1)) / cover.sum(), [0.47, 0.52], atol=5e-4)
    period = float(shapes.PERIODS[shape]) or 1.234
    turned = np.asarray(shapes.coverage(_at(shape, 0.3 + period), 256)[0, 0])
    np.testing.assert_allclose(turned, cover, atol=2e-4)
    half = np.asarray(shapes.coverage(_at(shape, 0.3 + period / 2), 256)[0, 0])
    assert np.abs(half - cover).mean() > 0.005 or shape == 0


@pytest.mark.parametrize("shape", range(4))
def test_distance_fields_are_distances(x64, shape):
    # |gradient| = 1 almost everywhere, and the zero set holds the corners: catches a scaled or folded field
    field = lambda p: shapes.DISTANCES[shape](p)
    points = np.random.default_rng(0).uniform(-2, 2, (2000, 2))
    slope = np.linalg.norm(jax.vmap(jax.grad(field))(jnp.asarray(points)), axis=-1)
    np.testing.assert_allclose(slope, 1, atol=1e-6)
    if shape:
        np.testing.assert_allclose(field(jnp.asarray(shapes.CORNERS[shape])), 0, atol=1e-6)
    else:
        np.testing.assert_allclose(field(jnp.asarray([[0.6, 0.8], [0.0, 0.0]])), [0, -1], atol=1e-12)


def test_deterministic_per_index():
    # scene i does not change with the other indices asked for, nor with their order
    key = jax.random.key(3)
    many, few = draw(key, jnp.arange(50), ALL), draw(key, jnp.array([7, 49]), ALL)
    for a, b in zip(many, few):
        np.testing.assert_array_equal(a[jnp.array([7, 49])], b)
    other = draw(jax.random.key(4), jnp.arange(50), ALL)
    assert not np.array_equal(other.center, many.center)


def test_factors_are_uniform_and_within_ranges():
    ranges = shapes.make_ranges(shapes=("disk", "cross"), colors=("red", "blue", "cyan"), size=(0.1, 0.3))
    f = draw(jax.random.key(5), jnp.arange(6000), ranges)
    share = np.bincount(np.ravel(f.shape), minlength=4) / 6000
    np.testing.assert_allclose(share, [0.5, 0, 0, 0.5], atol=0.03)
    np.testing.assert_allclose(np.bincount(np.ravel(f.color), minlength=6)[[0, 3, 4]] / 6000, 1 / 3, atol=0.03)
    size = np.ravel(f.size)
    assert size.min() >= 0.1 and size.max() <= 0.3
    np.testing.assert_allclose(np.quantile(size, [0.25, 0.5, 0.75]), [0.15, 0.2, 0.25], atol=0.01)
    # independent: shape and size, size and place, x and y
    assert abs(np.corrcoef(np.ravel(f.shape), size)[0, 1]) < 0.05
    assert abs(np.corrcoef(f.center[:, 0, 0], f.center[:, 0, 1])[0, 1]) < 0.05
    upright = draw(jax.random.key(5), jnp.arange(20), shapes.make_ranges(rotate=False))
    assert not np.asarray(upright.angle).any()


def test_images_are_in_range_and_whole(single):
    for pixels in (16, 32):
        images = render(single, pixels)
        assert images.shape == (96, pixels, pixels, 3) and images.dtype == jnp.float32
        assert float(images.min()) >= -1 and float(images.max()) <= 1
    # default ranges keep objects inside, with half a pixel of the smaller images to spare for the soft edge
    box = np.asarray(shapes.boxes(single))
    assert box.min() >= 0.5 / 16 and box.max() <= 1 - 0.5 / 16


def test_visible_shares_sum_to_one(crowd):
    # painting back to front by hand, one object at a time, must give the same shares
    seen = np.asarray(visible(crowd, 32))
    cover = np.asarray(shapes.coverage(crowd, 32))
    for n in range(20):
        left = np.ones((32, 32))
        for k in np.argsort(crowd.depth[n]):
            np.testing.assert_allclose(seen[n, k], cover[n, k] * left, atol=1e-5)
            left = left * (1 - cover[n, k])
    assert (seen.sum(axis=1) <= 1 + 1e-6).all() and (np.asarray(cover).sum(1) > 1.5).any()


def test_boxes_hold_their_masks_tightly(single, scenes):
    # at 128 pixels the mask's extent and the box agree to a pixel
    for f in (single, scenes):
        box, cover = np.asarray(shapes.boxes(f)), np.asarray(shapes.coverage(f, 128)) > 0.5
        for n, k in np.argwhere(np.asarray(f.present))[:80]:
            rows, columns = np.nonzero(cover[n, k])
            found = [columns.min() / 128, rows.min() / 128, (columns.max() + 1) / 128, (rows.max() + 1) / 128]
            np.testing.assert_allclose(box[n, k], found, atol=1.6 / 128)
        assert not box[~np.asarray(f.present)].any()


def test_segmentation_and_depth_name_the_nearest(crowd):
    seen = np.asarray(visible(crowd, 32))
    classes, depth = np.asarray(shapes.segmentation(crowd, 32)), np.asarray(shapes.depth_map(crowd, 32))
    for n in range(20):
        share = np.concatenate([1 - seen[n].sum(0, keepdims=True), seen[n]])
        owner = share.argmax(0)
        np.testing.assert_array_equal(classes[n], np.append(0, np.asarray(crowd.shape)[n] + 1)[owner])
        np.testing.assert_allclose(depth[n], np.append(1, np.asarray(crowd.depth)[n])[owner])
    assert classes.dtype == np.int32


def test_scenes_do_not_overlap_and_count(scenes):
    cover = np.asarray(shapes.coverage(scenes, 64))
    assert (cover.sum(axis=1) <= 1 + 1e-6).all()
    count = np.asarray(scenes.present).sum(axis=1)
    assert set(count) == {1, 2, 3, 4}
    color = np.sort(np.asarray(scenes.color), axis=1)
    assert (np.diff(color, axis=1) > 0).all()


@pytest.mark.parametrize("pixels", [16, 32])
def test_reader_recovers_single_objects(single, pixels):
    # textured backgrounds of all grey levels included; catches any dependence on what lies behind
    found = shapes_reader.read(render(single, pixels))
    assert np.asarray(found.present).all()
    np.testing.assert_array_equal(found.shape, single.shape)
    np.testing.assert_array_equal(found.color, single.color)
    np.testing.assert_allclose(found.center, single.center, atol=1e-5)
    np.testing.assert_allclose(found.size, single.size, atol=1e-5)
    np.testing.assert_allclose(shapes_reader.angle_error(found.angle, single.angle, single.shape), 0, atol=1e-4)
    assert float(found.residual.max()) < 1e-4
    plain = np.asarray(single.texture) == 0
    np.testing.assert_allclose(found.background[plain], single.background[plain], atol=1e-5)


def test_reader_recovers_scenes(scenes):
    found = shapes_reader.read(render(scenes, 32), objects=4)
    np.testing.assert_array_equal(np.asarray(found.present).sum(1), np.asarray(scenes.present).sum(1))
    order = lambda f: np.argsort(np.where(f.present, f.color, 99), axis=1, kind="stable")
    a, b = order(found), order(scenes)
    pick = lambda leaf, i: np.take_along_axis(np.asarray(leaf), i, axis=1)
    there = pick(scenes.present, b)
    for name in ("color", "shape", "size"):
        np.testing.assert_allclose(
            pick(getattr(found, name), a)[there], pick(getattr(scenes, name), b)[there], atol=1e-4
        )


def test_reader_on_noise(single):
    # noise of 0.05 moves the factors a little and the residual up, but not the classes
    images = render(single, 32)
    noisy = images + 0.05 * jax.random.normal(jax.random.key(6), images.shape)
    found = shapes_reader.read(noisy)
    assert (np.asarray(found.shape) == np.asarray(single.shape)).mean() > 0.97
    np.testing.assert_array_equal(found.color, single.color)
    assert float(jnp.abs(found.center - single.center).max()) < 0.02
    assert float(found.residual.min()) > 0.02


def test_reader_sees_nothing_where_nothing_is():
    empty = jnp.full((96, 16, 16, 3), -0.3, jnp.float32)  # the batch of the test above: one compile
    found = shapes_reader.read(empty)
    assert not np.asarray(found.present).any()
    np.testing.assert_allclose(found.background, 0.35, atol=1e-6)
    with pytest.raises(ValueError, match="images: expected"):
        shapes_reader.read(jnp.zeros((2, 16, 16, 1)))
    with pytest.raises(ValueError, match="objects: expected"):
        shapes_reader.read(empty, objects=7)


def test_views_agree_with_the_photograph(single, crowd):
    every = jax.jit(lambda f: {name: view(f, 32) for name, view in shapes_views.DOMAINS.items()})
    views = {name: np.asarray(image) for name, image in every(crowd).items()}
    for name, image in views.items():
        assert image.shape[:3] == (60, 32, 32) and image.min() >= -1 - 1e-6 and image.max() <= 1 + 1e-6, name
    # recolouring twice is the identity, and turns hues only
    swap = lambda f: f._replace(color=(f.color + 3) % 6)
    np.testing.assert_allclose(recolored(swap(single), 16), render(single, 16), atol=1e-5)
    found = shapes_reader.read(recolored(single, 16))
    np.testing.assert_array_equal(found.color, (single.color + 3) % 6)
    np.testing.assert_allclose(found.center, single.center, atol=1e-5)
    # edges lie where the coverage is neither 0 nor 1, and nowhere further than a pixel from a contour
    field, seen = np.asarray(shapes.fields(crowd, 32)), np.asarray(visible(crowd, 32))
    line = views["edges"][..., 0]
    partly = ((seen > 0.01) & (seen < 0.99) & (np.asarray(shapes.coverage(crowd, 32)) < 0.99)).any(axis=1)
    assert (line[partly & (seen.sum(1) == seen.max(1))] > -0.1).all()
    assert (line[(np.abs(field) > 1).all(axis=1)] == -1).all()
    # the class map's colours are those of the segmentation, the silhouette the sum of what is seen
    classes = np.asarray(shapes.segmentation(crowd, 32))
    np.testing.assert_allclose((views["class_map"] + 1) / 2, shapes_views.CLASS_COLORS[classes])
    np.testing.assert_allclose((views["silhouette"][..., 0] + 1) / 2, seen.sum(axis=1), atol=1e-5)
    np.testing.assert_allclose(views["depth"][..., 0], 2 * np.asarray(shapes.depth_map(crowd, 32)) - 1, atol=1e-6)
    # luminance of a pixel of each pure colour, and of grey
    gray, photo = views["gray"][..., 0], views["photo"]
    np.testing.assert_allclose(gray, photo @ np.array([0.299, 0.587, 0.114]), atol=1e-5)
    assert (views["night"] <= photo + 1e-6).all()


def test_captions_say_what_is_there(single, scenes):
    for f in (single, scenes):
        tokens = shapes_views.captions(f)
        assert tokens.shape == (len(f.shape), shapes_views.CAPTION_LENGTH) and tokens.dtype == np.int32
        assert tokens.max() < len(shapes_views.VOCABULARY)
        text = shapes_views.words_of(tokens)
        np.testing.assert_array_equal(shapes_views.tokens_of(text), tokens)
        for n in range(len(text)):
            words = text[n].split()
            present = np.asarray(f.present)[n]
            shown = [shapes.SHAPES[s] for s in np.asarray(f.shape)[n][present]]
            hues = [shapes.COLORS[c] for c in np.asarray(f.color)[n][present]]
            assert [w for w in words if w in shapes.SHAPES] == shown
            assert [w for w in words if w in shapes.COLORS] == hues
            relations = [w for w in words if w in shapes_views.RELATIONS]
            assert len(relations) == len(shown) - 1
            center = np.asarray(f.center)[n]
            for k, relation in enumerate(relations):
                (x0, y0), (x1, y1) = center[k], center[k + 1]
                assert {"left_of": x0 < x1, "right_of": x0 > x1, "above": y0 < y1, "below": y0 > y1}[relation]
            for k, place in enumerate(w for w in words if w in shapes_views.PLACES):
                assert ("left" in place) == (center[k, 0] <= 0.45) and ("bottom" in place) == (center[k, 1] > 0.55)
            ground = 0 if f.background[n] < 0.2 else 1 if f.background[n] < 0.6 else 2
            assert words[-2:] == ["on", shapes_views.GROUNDS[ground]]


@pytest.mark.parametrize(
    "options, match",
    [
        ({"shape": ("disk",)}, "unknown option 'shape'"),
        ({"shapes": ("hexagon",)}, "shapes: expected some of"),
        ({"colors": ()}, "colors: expected some of"),
        ({"colors": "red"}, "colors: expected some of"),
        ({"size": (0.3, 0.2)}, "size: expected 0 <= low"),
        ({"contrast": 2}, "contrast: expected"),
    ],
)
def test_bad_ranges(options, match):
    with pytest.raises(ValueError, match=match):
        shapes.make_ranges(**options)


def test_bad_scenes_and_captions():
    with pytest.raises(ValueError, match="objects: expected 1 to 4, got 5"):
        shapes.draw_scene(jax.random.key(0), jnp.arange(1), 5)
    with pytest.raises(ValueError, match="colors: expected at least 3"):
        shapes.draw_scene(jax.random.key(0), jnp.arange(1), 3, shapes.make_ranges(colors=("red", "blue")))
    with pytest.raises(ValueError, match="unknown word 'squares', did you mean 'square'"):
        shapes_views.tokens_of(["small red squares"])
    with pytest.raises(ValueError, match="at most 24 words"):
        shapes_views.tokens_of(["red " * 25])


def test_rendering_is_differentiable(single):
    # the gradient of brightness in the factors is finite everywhere, grid points on centres included
    f = single._replace(center=jnp.full_like(single.center, 0.5 + 0.5 / 16))
    grad = jax.jit(jax.grad(lambda size: shapes.render(f._replace(size=size), 16).sum()))(f.size)
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0
