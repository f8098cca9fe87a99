"""PyTorch's own tests of optimizers and schedulers, on LearnedOptimizer.

    python scripts/clients/pytorch_own.py               # what they ask, written anew
    python scripts/clients/pytorch_own.py --pytorch DIR  # they themselves, of a checkout

PyTorch's wheel has no tests, and nothing is downloaded here. With a checkout of PyTorch, of the
version that is installed, its files run with an OptimizerInfo for LearnedOptimizer; they need
expecttest, of the extra "clients". Prints each test with its result, or why it is left out, and
exits with 1 where one fails.
"""

import argparse
import importlib
import sys
import unittest
import warnings
from pathlib import Path

import pytorch_own_tests as anew
import rich
import torch
from rich.table import Table

import l2lgd

FOREACH = "there is one implementation, without foreach"
FUSED = "there is one implementation, without fused"
NO_GPU = "there is no GPU"
# By PyTorch's names.
LEFT_OUT = {
    "test_optim_infos_do_not_specify_global_cliquey_kwargs": "about PyTorch's list of optimizers",
    "test_forloop_goes_right_direction_multigpu": "needs two GPUs",
    "test_rosenbrock_sparse": "sparse gradients are refused, as by Adam",
    "test_foreach_matches_forloop": FOREACH,
    "test_mixed_device_dtype": FOREACH,
    "test_set_default_dtype_works_with_foreach": FOREACH,
    "test_foreach_large_tensor": FOREACH,
    "test_peak_memory_foreach": FOREACH,
    "test_defaults_changed_to_foreach": FOREACH,
    "test_fused_matches_forloop": FUSED,
    "test_fused_error_on_params_on_meta": FUSED,
    "test_fused_large_tensor": FUSED,
    "test_fused_does_not_step_if_foundinf": FUSED,
    "test_fused_cpu_matches_cuda": FUSED,
    "test_cpu_load_state_dict": FUSED,
    "test_second_order_optims_return_consistent_types": "no closure is needed",
    "TestDifferentiableOptimizer": "updates are not differentiated through",
    "test_cycle_lr_*momentum*": "there is no momentum",
    "test_onecycle_lr_*momentum*": "there is no momentum",
}
COVERED = {  # by a test of another name
    **dict.fromkeys(
        (
            *("test_state_dict_pre_hook", "test_state_dict_post_hook"),
            *("test_state_dict_pre_post_hook", "test_load_state_dict_pre_hook_and_prepend"),
            *("test_load_state_dict_post_hook", "test_load_state_dict_pre_post_hook"),
        ),
        "test_hooks_of_states",
    ),
    **dict.fromkeys(
        ("test_step_pre_hook", "test_step_post_hook", "test_step_all_hooks"), "test_hooks_of_steps"
    ),
}


def main() -> int:
    """Run them; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pytorch", type=Path, metavar="DIR", help="a checkout of PyTorch")
    given = parser.parse_args()
    if given.pytorch and not (given.pytorch / "test" / "test_optim.py").is_file():
        parser.error(f"there is no {given.pytorch}/test/test_optim.py")
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = of_checkout(given.pytorch) if given.pytorch else written_anew()
    table = Table("test", "result")
    for name, said in found.items():
        table.add_row(name, said)
    rich.print(table)
    failed = [name for name, said in found.items() if said.startswith("FAILS")]
    passed = sum(said.startswith("passes") for said in found.values())
    print(f"torch {torch.__version__}: {passed} pass, {len(failed)} fail, ", end="")
    print(f"{len(found) - passed - len(failed)} are left out")
    return int(bool(failed))


def written_anew() -> dict[str, str]:
    """The result of each function of ``pytorch_own_tests``, and of what has none."""
    found = {}
    for name in [name for name in vars(anew) if name.startswith("test_")]:
        if "cuda" in name and not torch.cuda.is_available():
            found[name] = f"left out: {NO_GPU}"
            continue
        failures = []
        for options in anew.INPUTS:
            try:
                getattr(anew, name)(options)
            except Exception as error:
                first = str(error).strip().splitlines()
                failures.append(f"{options}: {type(error).__name__}: {first[0] if first else ''}")
        about = getattr(anew, name).__doc__
        passes = f"passes. {about}" if about else "passes"
        found[name] = f"FAILS {'; '.join(failures)}" if failures else passes
    found |= {
        name: f"{found[other].partition('.')[0]}, as {other}" for name, other in COVERED.items()
    }
    return found | {name: f"left out: {why}" for name, why in LEFT_OUT.items()}


def of_checkout(folder: Path) -> dict[str, str]:
    """The same of PyTorch's own files."""
    from torch.testing._internal import common_optimizers as common

    def inputs(device: object, dtype: object = None) -> list[common.OptimizerInput]:
        return [common.OptimizerInput(None, dict(options), "") for options in anew.INPUTS]

    def errors(device: object, dtype: object) -> list[common.ErrorOptimizerInput]:
        found = common.get_error_inputs_for_all_optims(device, dtype)
        for error in found:  # our own words
            if "1-element" in error.error_regex:
                error.error_regex = "a tensor of 2 numbers; give one"
        return found

    info = common.OptimizerInfo(
        l2lgd.LearnedOptimizer,
        optim_inputs_func=inputs,
        supported_impls=(),
        not_og_supported_flags=("weight_decay", "maximize", "skip_zero_gradients"),
        optim_error_inputs_func=errors,
    )
    common.optim_db.append(info)
    sys.path.insert(0, str(folder / "test"))
    optimizers = importlib.import_module("test_optim")
    schedulers = importlib.import_module("optim.test_lrscheduler")
    schedulers.SGD = l2lgd.LearnedOptimizer
    suite = unittest.TestSuite()
    for case in _cases(unittest.defaultTestLoader.loadTestsFromModule(optimizers)):
        name = case.id().rpartition(".")[2]
        if "LearnedOptimizer" in name or "TestLRScheduler" in case.id():
            suite.addTest(case)
    result = _Result()
    suite.run(result)
    return result.found


def _cases(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found: list[unittest.TestCase] = []
    for part in suite:
        found += _cases(part) if isinstance(part, unittest.TestSuite) else [part]
    return found


class _Result(unittest.TestResult):
    """By name, what each test said."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._add(test, "passes")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._add(test, f"left out: {reason}")

    def addError(self, test: unittest.TestCase, err: object) -> None:
        self._failed(test, err)

    def addFailure(self, test: unittest.TestCase, err: object) -> None:
        self._failed(test, err)

    def _failed(self, test: unittest.TestCase, err: object) -> None:
        lines = str(err[1]).strip().splitlines() or [""]
        name = test.id().rpartition(".")[2]
        why = next((why for own, why in LEFT_OUT.items() if Path(name).match(f"{own}*")), None)
        self._add(test, f"left out: {why}" if why else f"FAILS: {err[0].__name__}: {lines[0]}")

    def _add(self, test: unittest.TestCase, said: str) -> None:
        self.found[test.id().rpartition(".")[2]] = said


if __name__ == "__main__":
    sys.exit(main())
