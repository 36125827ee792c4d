"""Small classifiers trained on a data set: feature extractors for metrics, and independent judges.

`extractor` (for the Frechet distance and its kin) and `judge` (for class accuracy) see disjoint
halves of the training data, have different architectures and different seeds, so the one is no
witness for the other. Both are trained once, from a fixed seed, and kept on disk by the content of
the data and of the recipe; what they were worth on the test split is kept with them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.data.resident import batch_at
from genjax.data.spec import choose
from genjax.metrics.features import Extractor, cached, content_hash

VERSION = 1  # raise it when the recipe changes: old files are then not found
BATCH = 64
FEATURES = 64
SMOOTHING = 0.05  # of the labels


class PatchConv(nn.Module):
    """Convolution as one matrix product of the shifted inputs, fast inside a scan on CPU too; odd kernel."""

    features: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x):
        (h, w), k = x.shape[1:3], self.kernel
        padded = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        shifted = [padded[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
        return nn.Dense(self.features)(jnp.concatenate(shifted, axis=-1))


class Cnn(nn.Module):
    """Convolutions with pooling down to 4 x 4, then a layer of features."""

    classes: int
    width: int = 24

    @nn.compact
    def __call__(self, x):
        x = nn.relu(PatchConv(self.width)(x))
        width = self.width
        while min(x.shape[1:3]) >= 8:
            x = nn.avg_pool(nn.relu(PatchConv(width)(x)), (2, 2), (2, 2))
            width = min(2 * width, 96)
        x = nn.relu(PatchConv(width)(x))
        features = nn.relu(nn.Dense(FEATURES)(x.reshape(len(x), -1)))
        return features, nn.Dense(self.classes)(features)


class LargeKernel(nn.Module):
    """One 5 x 5 convolution and pooling down to 4 x 4, normalized, then wide dense layers."""

    classes: int
    width: int = 48

    @nn.compact
    def __call__(self, x):
        while min(x.shape[1:3]) >= 16:
            x = nn.avg_pool(nn.gelu(PatchConv(self.width // 2)(x)), (2, 2), (2, 2))
        x = nn.gelu(PatchConv(self.width, kernel=5)(x))
        x = nn.LayerNorm()(nn.max_pool(x, (2, 2), (2, 2)))
        x = nn.gelu(PatchConv(2 * self.width)(x)).reshape(len(x), -1)
        features = nn.gelu(nn.Dense(FEATURES)(x))
        return features, nn.Dense(self.classes)(features)


class Mlp(nn.Module):
    """Two hidden layers; for vectors."""

    classes: int
    width: int = 256

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        features = nn.relu(nn.Dense(FEATURES)(x))
        return features, nn.Dense(self.classes)(features)


CLASSIFIERS = {"cnn": Cnn, "large_kernel": LargeKernel, "mlp": Mlp}


def _shift(key, x, reach):
    """Each image moved by up to `reach` pixels each way, edges repeated."""
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (len(x), 2), 0, 2 * reach + 1)
    cut = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, image.shape[-1]))
    return jax.vmap(cut)(padded, offsets)


def _train(module, arrays, key, steps):
    """Parameters of `module` after `steps` of AdamW on arrays x [N, ...], label [N]; one compiled scan."""
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 20, steps), weight_decay=0.02)
    batch_size = min(BATCH, len(arrays["x"]))
    # where few pixels are, a shift by one is as far as a class bears
    reach = 0 if arrays["x"].ndim != 4 else max(1, arrays["x"].shape[1] // 16)

    @jax.jit
    def run(key, arrays):
        params = module.init(jax.random.fold_in(key, 0), arrays["x"][:1])

        def loss_fn(params, key, batch):
            x = batch["x"]
            x = _shift(jax.random.fold_in(key, 0), x, reach) if reach else x
            x = x + 0.1 * jax.random.normal(jax.random.fold_in(key, 1), x.shape)
            logits = module.apply(params, x)[1]
            target = optax.smooth_labels(jax.nn.one_hot(batch["label"], logits.shape[-1]), SMOOTHING)
            return optax.softmax_cross_entropy(logits, target).mean()

        def step(carry, i):
            params, opt = carry
            batch = batch_at(jax.random.fold_in(key, 1), i, arrays, batch_size)
            grads = jax.grad(loss_fn)(params, jax.random.fold_in(jax.random.fold_in(key, 2), i), batch)
            updates, opt = optimizer.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
        return params

    return run(key, arrays)


def train_classifier(train, test, architecture="cnn", *, half=None, seed=0, steps=800, role=None):
    """A classifier of a data set as an Extractor, trained or found in the cache.

    Args:
      train, test: Datasets in memory with labels; `test` only measures `Extractor.accuracy`.
      architecture: "cnn", "large_kernel" (both for images) or "mlp".
      half: 0 or 1 trains on that half of `train` (they are disjoint), None on all of it.
      seed: of initialization, order and noise.
      steps: of 64 examples.
      role: middle part of the name, "digits-<role>-v1"; the architecture where None.

    Returns:
      Extractor with features [N, 64] and logits [N, K]; it takes any x of as many values an example,
      so images and flattened images alike.

    Raises:
      ValueError: a set without labels, or not in memory.
    """
    choose("architecture", architecture, CLASSIFIERS)
    for part in (train, test):
        if part.arrays is None or not part.spec.num_classes or "label" not in part.arrays:
            raise ValueError(
                f"{part.name}: expected labels and a set in memory to train a classifier; use raw_pixels()"
            )
    if half not in (None, 0, 1):
        raise ValueError(f"half: expected 0, 1 or None, got {half!r}")
    rows = np.random.default_rng(0).permutation(len(train))
    rows = rows if half is None else rows[half::2]
    arrays = {name: train.arrays[name][rows] for name in ("x", "label")}
    shape, module = train.spec.shape, CLASSIFIERS[architecture](train.spec.num_classes)
    apply = jax.jit(module.apply)

    def call(params, x):
        x = np.asarray(x, np.float32)
        if int(np.prod(x.shape[1:])) != int(np.prod(shape)):
            raise ValueError(f"{train.name} extractor: expected examples of shape {shape}, got {x.shape[1:]}")
        return apply(params, x.reshape(-1, *shape))

    def compute():
        params = _train(module, arrays, jax.random.key(seed), steps)
        logits = Extractor("", lambda x: call(params, x))(test.arrays["x"])[1]
        accuracy = np.mean(np.argmax(logits, axis=1) == test.arrays["label"])
        leaves = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(params))}
        return leaves | {"accuracy": accuracy}

    recipe = (VERSION, architecture, half, seed, steps, BATCH, FEATURES, train.spec.num_classes)
    key = content_hash(arrays["x"], arrays["label"], test.arrays["x"], test.arrays["label"], recipe)
    found = cached("classifier", key, compute)
    template = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    treedef = jax.tree.structure(template)
    params = jax.tree.unflatten(treedef, [jnp.asarray(found[f"leaf{i}"]) for i in range(treedef.num_leaves)])
    name = f"{train.name}-{role or architecture}-v{VERSION}"
    return Extractor(name, lambda x: call(params, x), key, float(found["accuracy"]))


def extractor(train, test, **options):
    """The feature extractor of a data set: "digits-cnn-v1" ("-mlp-" for vectors), from half 0, seed 0."""
    architecture = "cnn" if len(train.spec.shape) == 3 else "mlp"
    return train_classifier(train, test, architecture, half=0, seed=0, **options)


def judge(train, test, **options):
    """The independent classifier of class accuracy: "digits-judge-v1", another net, from half 1, seed 1."""
    architecture = "large_kernel" if len(train.spec.shape) == 3 else "mlp"
    return train_classifier(train, test, architecture, half=1, seed=1, role="judge", **options)


def class_accuracy(judge, x, labels):
    """Share of samples x [N, ...] that the judge puts in the class they were asked for, labels [N]."""
    return float(np.mean(np.argmax(judge(x)[1], axis=1) == np.asarray(labels)))
