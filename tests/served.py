"""``python ARGUMENTS``, many times over: what most runs import is imported once, then forked.

Each is a process of its own, from its command line to its exit status; only seconds of imports are
shared, and what was imported is not taken apart in the end. :class:`helpers.Server` sends requests,
one JSON object a line, on standard input.
"""

import atexit
import gc
import json
import os
import runpy
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn


def next_run() -> dict[str, Any]:
    """Fork for one request after the other; returns in the process that is to be the run.

    The answer is an exit status; to a request that is not to be waited for, the number of the
    process. With that number one may ask, and is told null until the process has ended.
    """
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        process = request.get("process") or os.fork()
        if process == 0:
            return request
        if request.get("background"):
            print(process, flush=True)
            continue
        ended, status = os.waitpid(process, os.WNOHANG if "process" in request else 0)
        print(os.waitstatus_to_exitcode(status) if ended else "null", flush=True)
    sys.exit()


def become(request: dict[str, Any]) -> None:
    """Be Python with the arguments, environment, folder and streams of a request."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    streams = [("/dev/null", os.O_RDONLY)]
    streams += [(request[name], os.O_WRONLY | os.O_APPEND) for name in ("stdout", "stderr")]
    for descriptor, (path, flags) in enumerate(streams):
        os.dup2(os.open(path, flags), descriptor)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    kind, *rest = request["arguments"]
    if kind not in ("-m", "-c"):  # a script, or a folder that is one
        script = Path(request["cwd"], kind)
        sys.path[:1] = [*([] if script.is_dir() else [str(script.parent)]), *added]
        sys.argv = [kind, *rest]
        runpy.run_path(str(script), run_name="__main__")
        return
    what, *rest = rest
    sys.path[:1] = [request["cwd"], *added]
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def leave(status: int) -> NoReturn:
    """End as Python does, but for its last act, which takes a third of a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def preload() -> None:
    """Import what most runs do."""
    import matplotlib.figure  # noqa: F401
    import torchvision  # noqa: F401

    sys.path.append(str(Path(__file__).parents[1] / "scripts" / "torture"))
    import torture_imports  # noqa: F401

    gc.set_threshold(50_000, 20, 20)  # runs of a second end before garbage matters


if __name__ == "__main__":
    preload()
    try:
        become(next_run())
    except SystemExit as error:
        if not isinstance(error.code, int | None):
            raise
        leave(error.code or 0)
