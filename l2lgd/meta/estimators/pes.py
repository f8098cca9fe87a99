"""Persistent evolution strategies (Vicol, Metz & Sohl-Dickstein 2021)."""

from torch import Tensor

from l2lgd.meta.estimators.particles import Differences, ParticleEstimator, Particles


class PersistentES(ParticleEstimator):
    """(ξ + ε) D / (2σ²), with D over an unroll, and ξ the sum of ε over earlier ones.

    Each particle goes on from where it has come, so a loss depends on all perturbations of its
    trajectory, and is credited to all of them: the truncation causes no bias. Memory and time of a
    meta-step are those of an unroll, whatever the horizon. The variance grows with the number of
    unrolls in a trajectory. Losses on a trajectory that has begun within the unroll are credited to
    ε alone.
    """

    staggered = True

    def prepare(self, particles: Particles, fraction: float) -> int:
        return particles.setting.unroll.length(fraction)

    def credit(self, found: Differences, epsilon: Tensor, accumulated: Tensor) -> Tensor:
        old = (accumulated + epsilon) * found.old.unsqueeze(1)
        return old + epsilon * found.new.unsqueeze(1)
