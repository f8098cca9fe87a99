"""The command line: every mistake is one line with the way out, and Hydra's flags work."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import CONF, NO_NETWORK, environment, l2lgd
from omegaconf import OmegaConf

QUICK = ("task=quadratic", "logger=none", "device=cpu", "threads=1")
TINY = (*QUICK, "num_functions=2", "num_steps=4", "validation_functions=2", "meta_steps=2")


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    without = "no C++ compiler"  # which may be said before
    lines = [line for line in done.stderr.splitlines() if not line.startswith(without)]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("l2lgd: ")
    for part in parts:
        assert part in lines[0]
    assert "Traceback" not in done.stdout


MISTAKES = {  # what is typed: words that the answer must have
    ("meta-trian",): ["no verb meta-trian", "did you mean meta-train?"],
    ("frobnicate", "task=mnist"): ["no verb frobnicate"],
    ("--verson",): ["did you mean --version?"],
    ("--multirun", "meta-train", "task=quadratic"): [
        "the verb comes first",
        "l2lgd meta-train --multirun task=quadratic",
    ],
    ("tune", "logger=none", "task=quadratic", "search=meta_learning_rate", "trials=0"): ["trials"],
    ("tune", "logger=none", "task=quadratic", "baselines=[]"): ["baselines"],
    ("tune", *QUICK, "checkpoint=x"): ["search=update_scale"],
    ("tune", *QUICK, "search=update_scale", "checkpoint=x"): ["no weights x", "l2lgd optimizers"],
    ("tune", *QUICK, "search=update_scale", "opt=adam"): ["opt=adam"],
    ("evaluate", "task=quadratic", "tune_functions=0"): ["tune_functions=0"],
    ("evaluate", "task=quadratic", "logger=null"): ["logger=null", "logger=none"],
    ("evaluate", "task=quadratic", "-cd", "nowhere"): ["nowhere"],
    ("meta-train", *QUICK, "tsk=mnist"): ["tsk", "did you mean task?"],
    ("meta-train", *QUICK, "task=quadratc"): ["task=quadratc", "did you mean quadratic?"],
    ("meta-train", *QUICK, "opt=lstn"): ["opt=lstn", "did you mean lstm?"],
    ("meta-train", *QUICK, "metasteps=3"): ["metasteps", "did you mean meta_steps?"],
    ("meta-train", *QUICK, "+meta_step=3"): ["meta_step", "did you mean meta_steps?"],
    ("meta-train", *QUICK, "opt.hiden_size=3"): ["opt.hiden_size", "did you mean hidden_size?"],
    ("meta-train", "logger=none", "task=mnist", "task.data.sorce=auto"): [
        "task.data.sorce",
        "did you mean source?",
    ],
    ("meta-train", *QUICK, "meta_steps=many"): ["meta_steps", "many"],
    ("meta-train", *QUICK, "opt.hidden_size=big"): ["opt.hidden_size", "big"],
    ("meta-train", *QUICK, "num_functions=0"): ["num_functions=0", "at least 1"],
    ("meta-train", *QUICK, "meta_steps=-3"): ["meta_steps=-3"],
    ("meta-train", *QUICK, "meta_steps"): ["meta_steps"],
    ("meta-train", *QUICK, "meta_steps=[1"): ["[1"],
    ("meta-train", *QUICK, "--no-such-flag"): ["--no-such-flag"],
    ("meta-train", *QUICK, "device=gpu"): ["device=gpu", "cuda"],
    ("meta-train", *QUICK, "task._target_=os.system"): ["os.system", "allow_targets"],
    ("meta-train", *QUICK, "opt=adam"): ["opt=adam", "nothing to meta-train", "opt=lstm"],
    ("meta-train", "experiment=quadratic_refine", "logger=none"): [
        "initial_weights: no checkpoint"
    ],
    ("meta-train", *QUICK, "resume=nowhere"): ["resume=nowhere", "no run"],
    ("meta-train", *QUICK, "resume=a_folder"): ["resume=a_folder", "no run"],
    ("meta-train", *QUICK, "hydra.run.dir=a_file/run"): ["a_file"],
    ("meta-train", "logger=none", "task=mnist", "task.data.source=folder", "data_dir=a_folder"): [
        "mnist",
        "a_folder",
        "task.data.source=embedded",
    ],
    ("meta-train", "logger=none", "task.data.source=torchvision", "data_dir=a_folder"): [
        "mnist",
        "a_folder",
        "task.data.source=embedded",
    ],
    ("evaluate", *QUICK, "meta_steps=3"): ["meta_steps"],
    ("evaluate", *QUICK, "checkpoint=missing.safetensors"): ["missing.safetensors"],
    ("evaluate", *QUICK, "checkpoint=garbage.safetensors"): ["garbage.safetensors"],
    ("evaluate", *QUICK, "checkpoint=a_folder"): ["a_folder", "is a folder"],
    ("evaluate", *QUICK, "opt=adam", "checkpoint=garbage.safetensors"): ["opt=adam", "learned"],
    ("evaluate", *QUICK, "baselines=adam"): ["baselines=[adam]"],
    ("evaluate", "seed"): ["seed cannot be read", "name=value"],
    ("meta-train", *QUICK, "resume=damaged"): ["damaged", "cannot be read"],
    ("meta-train", *QUICK, "estimator.smoothing=-1"): ["estimator.smoothing=-1"],
    ("evaluate", *QUICK, "split=tests"): ["split=tests", "did you mean test?"],
    ("evaluate", *QUICK, "baselines=[adm]"): ["adm", "did you mean adam?"],
    ("tune", *QUICK, "search=learning_rates"): ["learning_rates"],
    ("tune", *QUICK, "lowest_rate=1", "highest_rate=0.1"): ["lowest_rate", "highest_rate"],
    ("tune", *QUICK, "baselines=[lstm]"): ["lstm", "no learning rate"],
    ("meta-train", *QUICK, "resume=~nobody_here/x"): ["~", "user"],
    ("meta-train", *QUICK, "threads=1000000"): ["threads=1000000", "at most"],
    ("meta-train", *QUICK, "num_functions=18446744073709551616"): ["num_functions", "too large"],
    ("meta-train", *QUICK, "meta_learning_rate=1e39"): ["meta_learning_rate", "too large"],
    ("meta-train", *QUICK, "opt.hidden_size=1000000000000"): ["opt cannot be built"],
    ("meta-train", *QUICK, "unroll.lengths=[5,[5]]"): ["unroll.lengths"],
    ("meta-train", *QUICK, "opt._target_=l2lgd.__main__.main"): ["opt._target_", "not a class"],
    ("meta-train", *QUICK, "task._target_=l2lgd.tasks.base.Task"): ["task._target_", "not a class"],
    ("meta-train", *QUICK, "task='../task/quadratic'"): ["task=", "names"],
    ("meta-train", *QUICK, "hydra.job.name=../../x"): ["hydra.job.name", "log file"],
    ("meta-train", *QUICK, "hydra.job_logging.root.level=NOPE"): ["Unable to configure"],
    ("meta-train", *QUICK, "--cfg", "jbo"): ["--cfg=jbo", "did you mean job?"],
    ("optimizers", "a" * 5000): ["name too long"],
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=lambda arguments: " ".join(arguments[-2:]))
def test_a_mistake_is_answered_in_one_line(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "garbage.safetensors").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "a_file").write_text("in the way")
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "damaged" / ".hydra").mkdir(parents=True)
    (tmp_path / "damaged" / ".hydra" / "overrides.yaml").write_text(": [")
    assert_one_line(l2lgd(*arguments, cwd=tmp_path, **NO_NETWORK), *MISTAKES[arguments])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "task=quadratic", "logger=none", "device=cuda", cwd=tmp_path)
    assert_one_line(done, "device=cuda", "device=cpu")


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"]])
def test_help_may_be_piped_to_what_stops_reading(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "l2lgd", *arguments]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize("words", [["--version"], ["--help"], ["tune", "--help"], ["optimizers"]])
def test_what_cannot_be_shown_is_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "l2lgd", *words],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    said = "l2lgd: could not write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_help_lists_the_verbs(tmp_path: Path) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        done = l2lgd(*arguments, cwd=tmp_path)
        assert done.returncode == 0
        assert done.stderr == ""
        for verb in ("meta-train", "evaluate", "tune"):
            assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", ["meta-train", "evaluate", "tune"])
def test_help_of_a_verb_lists_its_options(verb: str, tmp_path: Path) -> None:
    done = l2lgd(verb, "task=quadratic", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: l2lgd {verb}" in done.stdout
    assert "\n  num_steps " in done.stdout
    assert list(tmp_path.iterdir()) == [], "asking for help leaves files behind"


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = l2lgd("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("l2lgd 0.")


@pytest.mark.parametrize(
    "program",
    [
        "import l2lgd.cli",
        "from l2lgd.cli.main import main; main(['--help'])",
        "from l2lgd.cli.main import main; main(['evaluate', '--help'])",
        "from l2lgd.cli.main import main; main(['--version'])",
        "from l2lgd.cli.main import main; main(['evalaute'])",
        "from l2lgd.cli.main import main; main(['-sc', 'query=bash'])",
    ],
)
def test_what_needs_no_torch_does_not_import_it(program: str, tmp_path: Path) -> None:
    checked = f"import sys; {program}; sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", checked],
        cwd=tmp_path,
        env=environment(COMP_LINE="l2lgd ev"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0


def test_the_composed_config_is_shown(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "task=quadratic", "seed=7", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    config = OmegaConf.create(done.stdout)
    assert config.seed == 7
    assert config.task.name == "quadratic"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("l2lgd me", {"meta-train"}),
        (
            "l2lgd ",
            {
                "meta-train",
                "evaluate",
                "tune",
                "stylize",
                "benchmark",
                "check",
                "figures",
                "optimizers",
                "new",
                "convert",
            },
        ),
        ("l2lgd evaluate spl", {"split="}),
        ("l2lgd meta-train opt=rms", {"opt=rmsprop"}),
        ("l2lgd nonsense ta", set()),
    ],
)
def test_the_shell_completes_verbs_and_options(
    line: str, answers: set[str], tmp_path: Path
) -> None:
    done = l2lgd("-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line)))
    assert done.returncode == 0
    assert set(done.stdout.split()) == answers


def test_flags_of_hydra_go_with_resume(tmp_path: Path) -> None:
    conf = ("--config-dir", "conf")
    (tmp_path / "conf" / "task").mkdir(parents=True)
    shutil.copy(CONF / "task" / "quadratic.yaml", tmp_path / "conf" / "task" / "mine.yaml")
    words = ("meta-train", *TINY, "unroll.lengths=[2]", "task=mine", "hydra.run.dir=run")
    assert l2lgd(*words, *conf, cwd=tmp_path).returncode == 0
    (tmp_path / "conf").rename(tmp_path / "moved")
    moved = ("--config-dir", "moved")
    for flags in (["--cfg", "job"], ["--info", "defaults"], ["-r"], []):
        done = l2lgd("meta-train", *flags, "resume=run", *moved, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("num_functions: 2" in done.stdout) == ("--cfg" in flags)


# Behind an override argparse alone would not take the flag.
@pytest.mark.parametrize("place", [0, len(TINY)])
def test_a_sweep_makes_a_folder_a_run(place: int, tmp_path: Path) -> None:
    arguments = [*TINY, "seed=3,4", "hydra.sweep.dir=sweep"]
    arguments.insert(place, "--multirun")
    done = l2lgd("meta-train", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for folder, seed in (("0", 3), ("1", 4)):
        config = OmegaConf.load(tmp_path / "sweep" / folder / ".hydra" / "config.yaml")
        assert config.seed == seed
        assert (tmp_path / "sweep" / folder / "checkpoints" / "best.safetensors").is_file()


def test_a_mistake_in_a_sweep_ends_without_a_traceback(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "--multirun", *TINY, "opt=adam", "seed=3,4", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    *_, first, second, last = done.stderr.splitlines()
    assert "): opt=adam is hand-designed" in first
    assert "): opt=adam is hand-designed" in second
    assert last.startswith("l2lgd: 2 of 2 jobs did not succeed")


def test_a_traceback_can_be_had(tmp_path: Path) -> None:
    arguments = ("evaluate", *QUICK, "checkpoint=missing.safetensors")
    done = l2lgd(*arguments, cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
