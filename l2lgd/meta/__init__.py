"""Meta-training: rollout, estimators of the meta-gradient, trajectories, schedules, trainer."""
