"""Other views of rendered shapes: image domains that are paired with the photograph, and captions.

A view is `(factors, pixels) -> images [N, H, W, C] in [-1, 1]`, so every image has its exact
counterpart in every domain. Unpaired sets are views of disjoint scenes.
"""

import difflib

import jax.numpy as jnp
import numpy as np

from genjax.worlds.shapes import (
    COLORS,
    SHAPES,
    coverage,
    depth_map,
    fields,
    pixel_grid,
    render,
    segmentation,
    visible,
)

CLASS_COLORS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)  # of the segmentation


def edges(factors, pixels):
    """Outlines one pixel wide, white on black, hidden lines removed; one channel."""
    line = jnp.clip(1 - jnp.abs(fields(factors, pixels)), 0, 1) * factors.present[..., None, None]
    cover = coverage(factors, pixels)
    nearer = (factors.depth[:, None, :] < factors.depth[:, :, None])[..., None, None]
    hidden = jnp.prod(jnp.where(nearer, 1 - cover[:, None], 1), axis=2)
    return 2 * jnp.max(line * hidden, axis=1)[..., None] - 1


def silhouette(factors, pixels):
    """Share of each pixel covered by any object; one channel."""
    return 2 * visible(factors, pixels).sum(axis=1)[..., None] - 1


def class_map(factors, pixels):
    """The segmentation in fixed colours, one a class; three channels, hard edges."""
    return 2 * jnp.asarray(CLASS_COLORS)[segmentation(factors, pixels)] - 1


def gray(factors, pixels):
    """The photograph's luminance (Rec. 601 weights); one channel."""
    weight = jnp.array([0.299, 0.587, 0.114], factors.size.dtype)
    return jnp.einsum("nhwc,c->nhw", render(factors, pixels), weight)[..., None]


def depth(factors, pixels):
    """The depth map; one channel."""
    return 2 * depth_map(factors, pixels)[..., None] - 1


def recolored(factors, pixels):
    """The same scenes with every colour replaced by its opposite (red by cyan, ...)."""
    return render(factors._replace(color=(factors.color + len(COLORS) // 2) % len(COLORS)), pixels)


def night(factors, pixels):
    """The photograph at night: gamma 1.5, dimmed towards the corners."""
    off = jnp.sum((pixel_grid(pixels) - 0.5) ** 2, axis=-1)
    light = (0.7 * jnp.exp(-2 * off))[None, :, :, None]
    return 2 * light * ((render(factors, pixels) + 1) / 2) ** 1.5 - 1


DOMAINS = {
    "photo": render,
    "edges": edges,
    "silhouette": silhouette,
    "class_map": class_map,
    "gray": gray,
    "depth": depth,
    "recolored": recolored,
    "night": night,
}

SIZES = ("small", "large")
PLACES = ("top_left", "top", "top_right", "left", "center", "right", "bottom_left", "bottom", "bottom_right")
RELATIONS = ("left_of", "right_of", "above", "below")
GROUNDS = ("black", "gray", "white")
VOCABULARY = ("<pad>", *SIZES, *COLORS, *SHAPES, *PLACES, *RELATIONS, "on", *GROUNDS)
CAPTION_LENGTH = 24


def captions(factors):
    """Tokens int32 [N, CAPTION_LENGTH], zeros (padding) at the end, of a fixed grammar.

    caption = object (relation object)* "on" ground;  object = size colour shape place.
    A relation says where the object before it lies, as seen from the one after it. For K = 1 objects
    of size 0.17 and more are large, in scenes of several those from 0.11.
    """
    f = type(factors)(*(np.asarray(leaf) for leaf in factors))
    n, k = f.shape.shape
    code = {word: i for i, word in enumerate(VOCABULARY)}
    size = code["small"] + (f.size >= (0.17 if k == 1 else 0.11))
    column, row = ((f.center[..., i] > 0.45).astype(int) + (f.center[..., i] > 0.55) for i in (0, 1))
    words = np.stack(
        [size, code[COLORS[0]] + f.color, code[SHAPES[0]] + f.shape, code[PLACES[0]] + 3 * row + column], -1
    )
    words = words * f.present[..., None]
    gap = np.diff(f.center, axis=1)  # from each object to the next
    horizontal = np.abs(gap[..., 0]) >= np.abs(gap[..., 1])
    relation = np.where(horizontal, gap[..., 0] < 0, 2 + (gap[..., 1] < 0)) + code["left_of"]
    relation = np.concatenate([relation * f.present[:, 1:], np.zeros((n, 1), int)], axis=1)
    sentence = np.concatenate([words, relation[..., None]], axis=-1).reshape(n, -1)
    ground = code["black"] + (f.background >= 0.2).astype(int) + (f.background >= 0.6)
    sentence = np.concatenate([sentence, np.full((n, 1), code["on"]), ground[:, None]], axis=1)
    order = np.argsort(sentence == 0, axis=1, kind="stable")  # close the gaps that absent objects leave
    sentence = np.take_along_axis(sentence, order, axis=1)
    out = np.zeros((n, CAPTION_LENGTH), np.int32)
    out[:, : sentence.shape[1]] = sentence
    return out


def words_of(tokens):
    """The captions of tokens [N, T] as strings, padding left out."""
    return [" ".join(VOCABULARY[t] for t in row if t) for row in np.asarray(tokens)]


def tokens_of(sentences):
    """Tokens [N, CAPTION_LENGTH] of strings of vocabulary words.

    Raises:
      ValueError: a word that is not in the vocabulary, or a sentence that is too long.
    """
    out = np.zeros((len(sentences), CAPTION_LENGTH), np.int32)
    for i, sentence in enumerate(sentences):
        words = sentence.split()
        for word in words:
            if word not in VOCABULARY[1:]:
                near = difflib.get_close_matches(word, VOCABULARY[1:], 1)
                raise ValueError(f"caption: unknown word {word!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        if len(words) > CAPTION_LENGTH:
            raise ValueError(f"caption: expected at most {CAPTION_LENGTH} words, got {len(words)}")
        out[i, : len(words)] = [VOCABULARY.index(word) for word in words]
    return out
