"""What forks of ``torture.py`` and of the tests begin with: usual imports, done once."""

import gc

import hydra  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401
from hydra.core.plugins import Plugins

import l2lgd.cli.commands
import l2lgd.cli.main
import l2lgd.config.messages
import l2lgd.verbs.evaluate
import l2lgd.verbs.figures
import l2lgd.verbs.meta_train
import l2lgd.verbs.stylize
import l2lgd.verbs.tune  # noqa: F401

Plugins.instance()  # looks for them in every package
gc.freeze()  # what is never collected is never copied, either
