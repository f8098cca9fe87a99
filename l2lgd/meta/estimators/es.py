"""Evolution strategies on truncated unrolls."""

from torch import Tensor

from l2lgd.meta.estimators.particles import Differences, ParticleEstimator, Particles


class TruncatedES(ParticleEstimator):
    """ε D / (2σ²), with D over an unroll, at whose beginning both particles of a pair are together.

    As truncated backpropagation does, it leaves out what an unroll does to later ones: its bias is
    towards short horizons. Both particles go on from where the positive one has come.
    """

    staggered = True

    def prepare(self, particles: Particles, fraction: float) -> int:
        unroll = particles.setting.unroll
        unroll.refuse_empty(unroll.horizon(fraction, particles.setting.num_steps))
        particles.join_signs()
        return unroll.length(fraction)

    def credit(self, found: Differences, epsilon: Tensor, accumulated: Tensor) -> Tensor:
        return epsilon * (found.old + found.new).unsqueeze(1)
