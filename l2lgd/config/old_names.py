"""Names in stored configs and weights of earlier versions, and what they are called now."""

TARGETS = {  # of ``_target_``
    "l2lgd.mirrors.Mirror": "l2lgd.tracking.loggers.Logger",
    "l2lgd.mirrors.TensorBoard": "l2lgd.tracking.loggers.TensorBoard",
    "l2lgd.mirrors.Wandb": "l2lgd.tracking.loggers.Wandb",
    "l2lgd.optimizers.odd.Odd": "l2lgd.optimizers.sign_equivariant.SignEquivariant",
}
