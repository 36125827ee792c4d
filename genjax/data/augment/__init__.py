"""Augmentation on the device, differentiable, one key a sample, for any image batch [B, H, W, C].

`AUGMENTS` maps a name to the constructor of an `Augment`, which is what a game plays with:

  augment(keys, x, state=None) -> x        what the discriminator is shown, real and fake alike
  augment.init() -> state                  of the controller; () where nothing adapts
  augment.update(state, signs) -> state    signs of D(real) of the step, [B] or any shape
  augment.present(keys, real, fake, state) -> what is shown as real (APA; the reals themselves elsewhere)
"""

from genjax.data.augment.ada import TRANSFORMS, ada, ada_augment
from genjax.data.augment.apa import apa, pseudo_reals
from genjax.data.augment.base import Augment, Controlled, controller, fixed
from genjax.data.augment.diff import diff_augment
from genjax.data.augment.flip import horizontal_flip
from genjax.data.augment.warp import affine_warp, shift

AUGMENTS = {
    # name: constructor (**numbers) -> Augment
    "flip": fixed(horizontal_flip),
    "diffaugment": fixed(diff_augment),
    "ada": ada,
    "apa": apa,
}

__all__ = [
    "AUGMENTS",
    "TRANSFORMS",
    "Augment",
    "Controlled",
    "ada",
    "ada_augment",
    "affine_warp",
    "apa",
    "controller",
    "diff_augment",
    "fixed",
    "horizontal_flip",
    "pseudo_reals",
    "shift",
]
