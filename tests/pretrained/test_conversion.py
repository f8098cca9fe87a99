"""Weights that others have published, as weights of ours."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published import celo, packed, random_celo, small_fc
from safetensors.torch import load_file
from torch import Tensor, nn

from l2lgd import LearnedOptimizer
from l2lgd.errors import CheckpointError
from l2lgd.optimizers.observation import Observation
from l2lgd.pretrained import weights
from l2lgd.pretrained.conversion import convert

TRACES = Path(__file__).parents[3] / "shared" / "traces" / "celo.safetensors"


def converted(folder: Path, kind: str, tree: Any) -> Any:
    """The rule of the file that a file of such weights is converted to."""
    path, output = folder / "theta.state", folder / "converted.safetensors"
    path.write_bytes(packed(tree))
    convert(kind, path, output, f"l2lgd convert {kind} theta.state")
    return weights.load(str(output))


def authors() -> dict[str, Tensor]:
    """A trace of the authors' program, with their weights."""
    if not TRACES.exists():
        pytest.skip(f"no {TRACES.name}")
    return load_file(TRACES)


def test_every_weight_of_celo_has_its_place(tmp_path: Path) -> None:
    theirs = random_celo()
    rule = converted(tmp_path, "celo", celo(theirs))
    assert rule.rule.weights[0].equal(theirs["mlp.w0"])  # sorted by numbers
    assert rule.rule.weights[2].equal(theirs["mlp.w2"][:, :2])
    assert rule.rule.biases[1].equal(theirs["mlp.b1"])
    layers = {"direct": "inp", "rectified": "mix", "gates": "lstm", "output": "out"}
    for mine, name in layers.items():
        assert rule.scheduler.weights[mine].equal(theirs[f"lstm.{name}.w"])
        assert rule.scheduler.biases[mine].equal(theirs[f"lstm.{name}.b"])
    assert rule.scheduler.initial_hidden.equal(theirs["lstm.h0"])
    assert rule.scheduler.initial_cell.equal(theirs["lstm.c0"])


def test_every_weight_of_small_fc_has_its_place(tmp_path: Path) -> None:
    tree = small_fc()
    rule = converted(tmp_path, "small_fc", tree)
    theirs, mlp = tree["params"], tree["params"]["nn"]["~"]
    for index in range(3):
        assert rule.weights[index].equal(mlp[f"w{index}"])
        assert rule.biases[index].equal(mlp[f"b{index}"])
    names = ("momentum_decays", "rms_decays", "adafactor_decays")
    assert rule.decay_shifts.equal(torch.cat([theirs[name] for name in names]))


def test_mlps_of_other_sizes_are_read(tmp_path: Path) -> None:
    tree = small_fc()
    mlp = tree["params"]["nn"]["~"]
    mlp |= {"w0": torch.zeros(39, 6), "b0": torch.zeros(6), "w1": torch.zeros(6, 2)}
    mlp |= {"b1": torch.zeros(2)}
    del mlp["w2"], mlp["b2"]
    rule = converted(tmp_path, "small_fc", tree)
    assert [tuple(weight.shape) for weight in rule.weights] == [(39, 6), (6, 2)]


def test_converted_weights_make_the_steps_of_the_authors(tmp_path: Path) -> None:
    traces = authors()
    names = sorted(key.removeprefix("grad.") for key in traces if key.startswith("grad."))
    rule = converted(tmp_path, "celo", celo(traces))
    rule = rule.named({n: tuple(traces[f"grad.{n}"].shape[1:]) for n in names})

    def joined(kind: str, step: int) -> Tensor:
        return torch.cat([traces[f"{kind}.{n}"][step].reshape(-1) for n in names]).unsqueeze(0)

    state = rule.initial_state(joined("param_before", 0))
    for step in range(20):
        theta = joined("param_before", step)
        seen = Observation(theta, traces["loss"][step : step + 1], step, 20)
        with torch.no_grad():
            update, state = rule.step(joined("grad", step), state, None, seen)
        torch.testing.assert_close(theta + update, joined("param_after", step))


TO_PYTORCH = {0: (), 1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}  # from (…, inputs, outputs), by rank


def test_layers_of_pytorch_go_where_the_authors_program_moves_them(tmp_path: Path) -> None:
    traces = authors()
    names = sorted(key.removeprefix("grad.") for key in traces if key.startswith("grad."))
    converted(tmp_path, "celo", celo(traces))

    def of(kind: str, name: str, step: int) -> Tensor:
        found = traces[f"{kind}.{name}"][step]
        return found.permute(TO_PYTORCH[found.dim()]).contiguous()

    parameters = {name: nn.Parameter(of("param_before", name, 0)) for name in names}
    file = tmp_path / "converted.safetensors"
    optimizer = LearnedOptimizer(parameters.values(), file, horizon=20)
    for step in range(20):
        for name, parameter in parameters.items():
            parameter.grad = of("grad", name, step)
        optimizer.step(loss=traces["loss"][step])
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), of("param_after", name, step))


def test_a_file_tells_where_it_comes_from(tmp_path: Path) -> None:
    converted(tmp_path, "celo", celo())
    told = weights.find(str(tmp_path / "converted.safetensors")).metadata
    assert told["opt_name"] == "celo"
    assert told["command"] == "l2lgd convert celo theta.state"
    assert told["source"].startswith("theta.state of celo, SHA-256 ")
    assert "MIT" in told["licence"]
    assert told["opt"]["rule"]["gradient_clip"] == 1000.0


@pytest.mark.parametrize(("kind", "tree"), [("celo", celo), ("small_fc", small_fc)])
def test_converted_weights_train_a_model(
    tmp_path: Path, kind: str, tree: Callable[[], Any]
) -> None:
    converted(tmp_path, kind, tree())
    model = nn.Linear(3, 2)
    file = tmp_path / "converted.safetensors"
    optimizer = LearnedOptimizer(model.parameters(), file, horizon=4)
    before = copy.deepcopy(model.state_dict())
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(torch.ones(1, 3)).square().sum()
        loss.backward()
        optimizer.step(loss=loss)
    for name, weight in model.state_dict().items():
        assert weight.isfinite().all()
        assert not weight.equal(before[name])


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for name in path[:-1]:
            tree = tree[name]
        del tree[path[-1]]

    return change


def changed(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for name in path[:-1]:
            tree = tree[name]
        tree[path[-1]] = value

    return change


MLP = ("ff_mod_stack", "~")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("rnn_params", "step_size"), "has no array step_size/w, which weights of celo"),
        (without(*MLP, "w1"), "has no array w1"),
        (without(*MLP, "w0__13"), r"of shape \(27, 4\), and in celo of \(30, 4\)"),
        (without(*MLP, "b0"), "has no array b0"),
        (changed(torch.zeros(1, 3, 5), *MLP, "w0__13"), "are not of one matrix"),
        (changed(torch.tensor(1.0), *MLP, "b2"), "is a single number"),
        (changed(torch.zeros(5, 4, 4), *MLP, "w1"), r"of shape \(5, 4, 4\)"),
        (changed(torch.full((1, 4), torch.nan), *MLP, "b0"), "not finite"),
        (changed({"b0": torch.zeros(4)}, "other"), "has two arrays b0"),
        (changed(torch.zeros(3000), "lstm_init_state", "cell"), "are fewer than those"),
        (changed(torch.zeros(0), "lstm_init_state", "cell"), "units=0: must be positive"),
    ],
)
def test_a_file_of_something_else_says_what_is_wrong(
    change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path
) -> None:
    tree = celo()
    change(tree)
    with pytest.raises((CheckpointError, ValueError), match=said):
        converted(tmp_path, "celo", tree)
    assert not (tmp_path / "converted.safetensors").exists()
