"""The verbs, and what each does in a line."""

VERBS = {
    "meta-train": "meta-train a learned optimizer on a task",
    "evaluate": "compare a trained optimizer with tuned hand-designed ones",
    "benchmark": "compare optimizers over tasks that none was trained for",
    "tune": "search learning rates, or what else search= names",
    "check": "find what is wrong with a task or an optimizer of your own",
    "figures": "draw the figures of the paper, evaluating what is missing",
    "stylize": "paint a photograph in the style of another picture",
}

PLAIN = {  # verbs without a config
    "optimizers": "list the trained optimizers that ship, or tell all about one",
    "new": "write the two files of a task or an optimizer of your own",
    "convert": "read trained weights that others have published for JAX",
}

# Where those are, as functions.
MODULES = {"optimizers": "listing", "new": "scaffold", "convert": "convert"}
