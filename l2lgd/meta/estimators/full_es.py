"""Evolution strategies on whole trajectories."""

from torch import Tensor

from l2lgd.meta.estimators.particles import Differences, ParticleEstimator, Particles


class FullES(ParticleEstimator):
    """A meta-step is a whole trajectory: ε D / (2σ²), with D over all of its steps.

    It is unbiased, and its variance grows with the horizon. ``unroll.lengths`` has no effect. A
    trajectory that is shorter than the longest one waits for it.
    """

    restarts = False

    def prepare(self, particles: Particles, fraction: float) -> int:
        if particles.step > 0:
            particles.restart_all(fraction)
        return particles.setting.unroll.horizon(fraction, particles.setting.num_steps)

    def credit(self, found: Differences, epsilon: Tensor, accumulated: Tensor) -> Tensor:
        return epsilon * found.old.unsqueeze(1)
