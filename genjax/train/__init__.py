"""Training: the loop and what stands around it.

loop          any Algorithm, many steps a dispatch, resumable at any step
feed          batches as a function of the step
checkpoints   written in the background, checked before use
workdir       lock, config, whole writes
logs          JSON lines, TensorBoard events, progress
optimizers, ema   Optax transforms and weight averages by name
generation, evaluation, pictures, hooks   samples and figures of a model
"""
