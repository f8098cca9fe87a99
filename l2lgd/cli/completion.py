"""Shell completion. Hydra knows nothing of verbs, so they are answered here."""

import os
import sys
from typing import Any

from l2lgd.cli.verbs import PLAIN, VERBS


def complete(arguments: list[str]) -> int:
    """Answer what the shell asks, or print what it is to be told once; returns the exit status."""
    line = os.environ.get("COMP_LINE")
    query = len(arguments) > 1 and arguments[1].startswith("query=")
    if query and line is not None:
        words = line.split()
        finished = words[1:] if line.endswith(" ") else words[1:-1]
        if not finished:
            start = "" if line.endswith(" ") else words[-1]
            verbs = VERBS | PLAIN
            print(" ".join(verb for verb in verbs if verb.startswith(start) or len(words) == 1))
            return 0
        verb = finished[0]
        if verb not in VERBS:
            return 0
        os.environ["COMP_LINE"] = line.replace(f" {verb}", "", 1)
    else:
        verb = "meta-train"
    import hydra

    from l2lgd.config import defaults

    defaults.install()

    def nothing(config: Any) -> None:
        pass

    sys.argv = ["l2lgd", *arguments]
    name = verb.replace("-", "_")
    hydra.main(version_base="1.3", config_path="pkg://l2lgd.conf", config_name=name)(nothing)()
    return 0
