"""Families of modules: what each computes, and that there is something to be learned."""

import functools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import node, run_steps
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.config.building import build
from l2lgd.data.graphs import karate_club
from l2lgd.errors import ConfigError, DataUnavailable
from l2lgd.optimizers.hand_designed import HandDesigned
from l2lgd.tasks.autoencoders import Autoencoder, VariationalAutoencoder
from l2lgd.tasks.image_modules import VisionTransformer
from l2lgd.tasks.language import GRULanguageModel, TransformerLanguageModel
from l2lgd.tasks.module import Modules, ModuleTask
from l2lgd.tasks.physics import SMOOTH, PoissonNetwork

CPU = torch.device("cpu")
RATES = {  # of Adam, the best of 0.003, 0.01, 0.03 and 0.1
    "autoencoder": 0.01,
    "vae": 0.01,
    "lm_gru": 0.01,
    "lm_transformer": 0.003,
    "resnet": 0.03,
    "vit": 0.003,
    "pinn": 0.01,
    "tabular_logistic": 0.03,
    "tabular_mlp": 0.01,
    "mlp": 0.01,
    "lenet": 0.003,
    "matrix_factorisation": 0.1,
    "graph": 0.1,
}

REACHED = {"lm_gru": 1.7, "lm_transformer": 1.7}  # nats per character; see lowest


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def made(name: str, *options: str) -> Any:
    """A task, in float64, on data that every machine has."""
    config = node("evaluate", "task", f"task={name}", "opt=adam", *options)
    if config.get("data", {}).get("name") == "mnist":
        config["data"]["source"] = "embedded"
    task: Any = build(config, "task")
    task.setup(str(Path("~/.cache/l2lgd").expanduser()), CPU, torch.float64)
    return task


def drawn(name: str, num_functions: int = 3, split: Any = "train", seed: int = 0) -> Modules:
    return made(name).sample(split, num_functions, seeded(seed))


def test_every_family_is_here() -> None:
    for name in RATES:
        assert isinstance(made(name), ModuleTask)
        assert made(name).network.stacked


@pytest.mark.parametrize("name", RATES)
def test_stacked_functions_are_those_apart(name: str) -> None:
    functions = drawn(name)
    parameters = functions.initial_parameters
    loss, gradient = functions.loss_and_gradient(parameters, 3)
    network = made(name).network
    network.stacked = False
    try:
        apart, its_gradient = functions.loss_and_gradient(parameters, 3)
    finally:
        network.stacked = True
    torch.testing.assert_close(loss, apart, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient, its_gradient, rtol=1e-6, atol=1e-9)
    for row in range(3):
        alone = functions.select(slice(row, row + 1)).loss(parameters[row : row + 1], 3)
        torch.testing.assert_close(alone, loss[row : row + 1], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", RATES)
def test_the_same_generator_gives_the_same_functions(name: str) -> None:
    first, again, other = drawn(name, seed=4), drawn(name, seed=4), drawn(name, seed=5)
    parameters = first.initial_parameters
    assert parameters.equal(again.initial_parameters)
    assert first.loss(parameters, 2).equal(again.loss(parameters, 2))
    assert not first.loss(parameters, 2).equal(other.loss(parameters, 2))


@pytest.mark.parametrize("name", RATES)
def test_second_derivatives_are_those_of_differences(name: str) -> None:
    functions = drawn(name, 1)
    parameters = functions.initial_parameters
    vector = torch.randn(parameters.shape, generator=seeded(), dtype=torch.float64)
    product = functions.hessian_product(parameters, 1, vector)
    assert product.isfinite().all()
    ahead, behind = (
        functions.loss_and_gradient(parameters + step * vector, 1)[1] for step in (1e-8, -1e-8)
    )
    away = (product - (ahead - behind) / 2e-8).norm() / product.norm()
    assert away < 1e-4  # so near, there is no kink of a ReLU between both


def entropy(labels: Tensor) -> float:
    """Cross-entropy of what predicts the frequencies of labels, in nats."""
    shares = labels.flatten().long().bincount().double() / labels.numel()
    return torch.special.entr(shares).sum().item()


def observed(functions: Modules) -> Tensor:
    """Entries of matrices that functions are trained on, (B, entries)."""
    places = functions.sources[0].tensors[0]
    matrices, order = (functions.constants[part] for part in ("matrix", "order"))
    return matrices.flatten(1).gather(1, order[:, places])


def constant(name: str, functions: Modules) -> float:
    """The loss of the best module whose output is the same whatever its input."""
    *_, targets = functions.sources[0].tensors
    if name == "matrix_factorisation":
        return observed(functions)[0].var(correction=0).item()
    if name == "pinn":  # u = 0, so the mean of f²
        return functions.constants["amplitudes"].square().sum().item() / 2
    if name not in ("autoencoder", "vae"):
        return entropy(targets)
    pixels = targets.double() / 255
    mean = pixels.mean(0).expand_as(pixels)
    score = functional.mse_loss if name == "autoencoder" else functional.binary_cross_entropy
    return score(mean, pixels).item()


def lowest(name: str, functions: Modules) -> float:
    """A bound that no loss is below; for language, less than 1,500 steps of Adam reach, 1.87."""
    if name == "vae":  # the cross-entropy of grey pixels with themselves
        pixels = functions.sources[0].tensors[0].double() / 255
        return functional.binary_cross_entropy(pixels, pixels).item()
    return REACHED.get(name, 0.0)


@pytest.mark.parametrize("name", RATES)
def test_adam_halves_the_loss_above_the_lowest_in_200_steps(name: str) -> None:
    functions = drawn(name, 1)
    last = run_steps(HandDesigned("Adam", RATES[name]), functions, 200)[-1]
    before, after = (
        sum(functions.loss(at, step).item() for step in range(1000, 1020)) / 20
        for at in (functions.initial_parameters, last)
    )
    said = f"{before:.4g} → {after:.4g}, constant {constant(name, functions):.4g}"
    floor = lowest(name, functions)
    assert after - floor < (before - floor) / 2, said
    assert after < constant(name, functions), said


@pytest.mark.parametrize("name", ["lm_gru", "tabular_logistic", "pinn", "vae", "graph"])
def test_splits_share_no_example(name: str) -> None:
    seen: dict[str, set[bytes]] = {}
    for split, tensors in made(name)._examples.items():
        rows = zip(*tensors, strict=True)
        seen[split] = {b"".join(part.numpy().tobytes() for part in row) for row in rows}
    if name != "lm_gru":  # a text repeats itself
        assert not seen["train"] & seen["validation"]
        assert not seen["train"] & seen["test"]
        assert not seen["validation"] & seen["test"]
    description = made(name).data_description()
    if name == "pinn":
        assert description is None
    else:
        sizes = {split: len(part[0]) for split, part in made(name)._examples.items()}
        assert description["num_examples"] == sizes


# Autoencoders


def test_an_autoencoder_is_scored_against_its_input() -> None:
    images = torch.rand(5, 1, 3, 4, generator=seeded())
    for loss in ("mse", "binary_cross_entropy"):
        module = Autoencoder([12, 6, 2], "relu", loss)
        first, second = (part for part in module.encoder if isinstance(part, nn.Linear))
        code = second(first(images.flatten(1)).relu())
        third, fourth = (part for part in module.decoder if isinstance(part, nn.Linear))
        shown = fourth(third(code).relu()).sigmoid()
        score = functional.mse_loss if loss == "mse" else functional.binary_cross_entropy
        torch.testing.assert_close(module(images), score(shown, images.flatten(1)))


def test_the_vae_has_the_evidence_lower_bound_of_distributions() -> None:
    module, images = VariationalAutoencoder([12, 6, 3], "tanh"), torch.rand(5, 1, 3, 4).round()
    noise = torch.randn(5, 3, generator=seeded())
    mean, log_variance = module.encoder(images.flatten(1)).split(3, dim=1)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    pixels = torch.distributions.Bernoulli(logits=module.decoder(mean + posterior.stddev * noise))
    divergence = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0, 1))
    bound = pixels.log_prob(images.flatten(1)).sum(1) - divergence.sum(1)
    torch.testing.assert_close(module(noise, images), -bound.mean() / 12)


def test_the_noise_of_a_step_belongs_to_it() -> None:
    functions = drawn("vae")
    (noise, images), (again, _), (other, _) = (functions.minibatch(step) for step in (1, 1, 2))
    assert (noise.shape, images.shape) == ((3, 64, 4), (3, 64, 1, 28, 28))
    assert noise.equal(again)
    assert not noise.equal(other)


# Classifiers of images


@pytest.mark.parametrize("name", ["resnet", "vit", "mlp", "lenet", "autoencoder", "vae"])
def test_images_may_have_colours_and_any_size(name: str, small_data: Path) -> None:
    task: Any = build(node("evaluate", "task", f"task={name}", "task.data.name=cifar10"), "task")
    task.setup(str(small_data), CPU)
    functions = task.sample("test", 2, seeded())
    images = max(functions.minibatch(0), key=Tensor.numel)
    side = 20 if name == "lenet" else 32
    assert images.shape[2:] == (3, side, side)
    assert functions.loss(functions.initial_parameters, 0).isfinite().all()
    assert task.data_description()["name"] == "cifar10"


def test_patches_are_squares_of_the_image() -> None:
    module = VisionTransformer(torch.Size([3, 5, 8]), 10, 4, 8, 1, 2)
    images = torch.rand(2, 3, 5, 8, generator=seeded())
    padded = functional.pad(images, (0, 0, 0, 3))
    expected = functional.unfold(padded, 4, stride=4).mT
    assert module.patches(images).equal(expected)
    assert module(images).shape == (2, 10)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_resnets_have_any_normalisation(norm: str) -> None:
    task = made("resnet", f"task.norm={norm}", "task.channels=[4,8,8]", "task.depth=2")
    functions = task.sample("train", 2, seeded())
    loss = functions.loss(functions.initial_parameters, 0)
    assert ((loss > 0.5 * math.log(10)) & (loss < 3 * math.log(10))).all()


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("hidden", [[6] * 8, [9, 7], []])
def test_perceptrons_have_any_depth_and_pytorchs_initial_weights(
    hidden: list[int], layer_norm: bool
) -> None:
    task = made("mlp", f"task.hidden_layers={hidden}", f"task.layer_norm={layer_norm}")
    functions = task.sample("train", 2, seeded())
    assert task.network.stacked
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip([784, *hidden], hidden, strict=False):
        norm = [nn.LayerNorm(outputs)] if layer_norm else []
        layers += [nn.Linear(inputs, outputs), *norm, nn.ReLU()]
    module = nn.Sequential(*layers, nn.Linear([784, *hidden][-1], 10)).double()
    theta = functions.initial_parameters[:1]
    pieces = [p[0].mT if p.dim() > 2 else p[0] for p in functions.unpack(theta).values()]
    for weight, own in zip(module.parameters(), pieces, strict=True):
        if weight.dim() > 1:
            assert 0.5 < own.abs().max() * weight.shape[1] ** 0.5 <= 1
        weight.data = own
    images, labels = functions.minibatch(0)
    expected = functional.cross_entropy(module(images[0]), labels[0])
    torch.testing.assert_close(functions.loss(functions.initial_parameters, 0)[0], expected)


def test_a_million_coordinates_are_stacked() -> None:
    functions = made("mlp", "task.hidden_layers=[1000,250]").sample("train", 2, seeded())
    assert functions.initial_parameters.shape == (2, 1_037_760)
    assert functions.loss_and_gradient(functions.initial_parameters, 0)[1].isfinite().all()


def test_lenets_are_the_modules_that_torch_builds() -> None:
    functions = drawn("lenet")
    module = nn.Sequential(
        *(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(4, 8, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)),
    ).double()
    network = made("lenet").network
    own = network._in_own_order(functions.unpack(functions.initial_parameters))
    for weight, piece in zip(module.parameters(), own.values(), strict=True):
        weight.data = piece[0]
    images, labels = functions.minibatch(0)
    expected = functional.cross_entropy(module(images[0]), labels[0])
    torch.testing.assert_close(functions.loss(functions.initial_parameters, 0)[0], expected)


def test_images_too_small_for_a_lenet_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing is left of images 12 × 12 after 2 convolutio"):
        made("lenet", "task.data.size=12")


# Language


def test_the_gru_is_that_of_pytorch() -> None:
    module, cell = GRULanguageModel(9, 4), nn.GRU(4, 4, batch_first=True)
    names = {"weight_ih_l0": module.inputs.weight, "bias_ih_l0": module.inputs.bias}
    names |= {"weight_hh_l0": module.hidden.weight, "bias_hh_l0": module.hidden.bias}
    cell.load_state_dict(names)
    characters = torch.randint(9, (3, 7), generator=seeded())
    expected = module.logits(cell(module.embedding(characters))[0])
    torch.testing.assert_close(module(characters), expected)


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_a_language_model_sees_nothing_of_what_comes(kind: str) -> None:
    models = {"gru": GRULanguageModel(9, 4), "transformer": TransformerLanguageModel(9, 7, 4, 2, 2)}
    first = torch.randint(9, (3, 7), generator=seeded())
    second = first.clone()
    second[:, 4] = (first[:, 4] + 1) % 9
    before, after = models[kind](first), models[kind](second)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not before[:, 4:].allclose(after[:, 4:])


def test_attention_is_that_of_pytorch() -> None:
    block = TransformerLanguageModel(9, 7, 8, 1, 2).blocks[0]
    theirs = nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = (
        block.queries_keys_values.weight.data,
        block.queries_keys_values.bias.data,
    )
    theirs.out_proj.load_state_dict(block.projection.state_dict())
    tokens = torch.randn(3, 7, 8, generator=seeded())
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    expected, _ = theirs(tokens, tokens, tokens, attn_mask=mask)
    torch.testing.assert_close(block.attended(tokens), expected)


def test_texts_are_cut_into_stretches(tmp_path: Path) -> None:
    text = "".join(chr(97 + k * k % 23) for k in range(500)) + "ß" + "x" * 499
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    options = ("task.length=9", "task.alphabet=40", f"task.file={tmp_path}/own.txt")
    task = made("lm_gru", *options)
    description = task.data_description()
    assert (description["name"], description["source"]) == ("own.txt", "file")
    assert description["num_examples"] == {"train": 88, "validation": 11, "test": 11}
    alphabet = "\0" + "".join(sorted(set(text[:800])))
    inputs, targets = task._examples["train"]
    for row in (0, 1, 87):
        assert "".join(alphabet[k] for k in inputs[row]) == text[9 * row : 9 * row + 9]
        assert "".join(alphabet[k] for k in targets[row]) == text[9 * row + 1 : 9 * row + 10]
    few = made("lm_gru", "task.alphabet=3", *options[::2])
    assert set(few._examples["train"][0].flatten().tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (None, DataUnavailable, "task.file=.*own.txt cannot be read: No such file"),
        (b"\xff\xfe\xfa", DataUnavailable, "is no text in UTF-8"),
        (b"short", ConfigError, "5 characters are too few for sequences of 24.*needs 2"),
    ],
)
def test_texts_that_do_not_do(
    content: bytes | None, kind: type[Exception], said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    with pytest.raises(kind, match=said):
        made("lm_gru", f"task.file={tmp_path}/own.txt")


def test_a_standard_library_without_source_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"0 characters .* give task\.file=FILE"):
        made("lm_gru", "task.characters=4000")


# Physics


@pytest.mark.parametrize("activation", SMOOTH)
def test_derivatives_carried_forward_are_those_of_autograd(activation: str) -> None:
    module = PoissonNetwork([5, 4], activation, 3, 10.0).double()
    points = torch.rand(6, 1, generator=seeded(), dtype=torch.float64).requires_grad_()
    value, slope, curvature = module.solution(points)
    (first,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), points)
    torch.testing.assert_close(slope, first)
    torch.testing.assert_close(curvature, second)


def test_the_exact_solution_solves_the_equation() -> None:
    module = PoissonNetwork([5], "tanh", 3, 10.0).double()
    points = torch.rand(6, 1, generator=seeded(), dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad(module.exact(points).sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), points)
    torch.testing.assert_close(-second, module.source(points).detach())
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(module.exact(ends), torch.zeros_like(ends))


def test_source_terms_belong_to_a_function_and_its_split() -> None:
    terms = [
        tuple(row)
        for split in ("train", "validation", "test")
        for row in drawn("pinn", 3, split).constants["amplitudes"].tolist()
    ]
    assert len(set(terms)) == 9


# Matrices


def test_factors_are_scored_on_entries_of_their_own_matrix() -> None:
    functions = drawn("matrix_factorisation")
    theta = functions.initial_parameters
    named, loss = functions.unpack(theta), functions.loss(theta, 2)
    (places,) = functions.minibatch(2)
    assert places.shape == (3, 64)
    for row in range(3):
        own = {name: tensor[row] for name, tensor in functions.constants.items()}
        errors = []
        for place in places[row].tolist():
            i, j = divmod(int(own["order"][place]), 20)
            found = sum(named["left"][row, k, i] * named["right"][row, k, j] for k in range(3))
            errors.append((found - own["matrix"][i, j]) ** 2)
        torch.testing.assert_close(loss[row], sum(errors) / 64)
    assert len(set(functions.constants["matrix"][:, 0, 0].tolist())) == 3


def test_matrices_have_entries_of_variance_one_and_their_rank() -> None:
    task = made("matrix_factorisation", "task.noise=0", "task.rank=4", "task.batch_size=null")
    functions = task.sample("train", 60, seeded())
    assert not functions.stochastic
    matrices = functions.constants["matrix"]
    assert matrices.square().mean().item() == pytest.approx(1, abs=0.1)
    assert set(torch.linalg.matrix_rank(matrices, rtol=1e-5).tolist()) == {4}
    assert observed(functions).shape == (60, 300)
    assert functions.shapes == {"left": (4, 30), "right": (4, 20)}


def test_matrices_belong_to_a_function_and_its_split() -> None:
    splits = ("train", "validation", "test")
    drawn_ones = [drawn("matrix_factorisation", 3, split).constants["matrix"] for split in splits]
    assert len(set(torch.cat(drawn_ones)[:, 0, 0].tolist())) == 9


# Graphs


def test_the_karate_club_is_that_of_others() -> None:
    networkx = pytest.importorskip("networkx")
    theirs, ours = networkx.karate_club_graph(), karate_club()
    assert ours.edges.shape == (78, 2)
    assert {frozenset(edge) for edge in ours.edges.tolist()} == set(map(frozenset, theirs.edges))
    clubs = [theirs.nodes[member]["club"] != "Mr. Hi" for member in range(34)]
    assert ours.labels.tolist() == clubs


def test_nodes_of_splits_are_apart_and_of_both_classes() -> None:
    graph = karate_club()
    parts = graph.divided()
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(34))
    for nodes in parts.values():
        assert len(nodes) in (11, 12)
        assert min(graph.labels[nodes].bincount(minlength=2)) >= 5


def test_a_graph_network_averages_over_neighbours_as_its_paper_says() -> None:
    functions, graph = drawn("graph"), karate_club()
    theta, neighbours = functions.initial_parameters, [{k} for k in range(34)]
    for one, other in graph.edges.tolist():
        neighbours[one].add(other)
        neighbours[other].add(one)

    def propagated(features: Tensor) -> Tensor:
        rows = [
            sum(features[b] / (len(own) * len(neighbours[b])) ** 0.5 for b in own)
            for own in neighbours
        ]
        return torch.stack(rows)  # type: ignore[arg-type]

    nodes, labels = functions.minibatch(0)
    assert labels.equal(graph.labels[nodes])
    for row in range(3):
        first, its_bias, second, bias = (part[row] for part in functions.unpack(theta).values())
        hidden = (propagated(torch.eye(34, dtype=torch.float64)) @ first + its_bias).relu()
        logits = propagated(hidden) @ second + bias
        expected = functional.cross_entropy(logits[nodes[row]], labels[row])
        expected = expected + 5e-4 * first.square().sum() / 2
        torch.testing.assert_close(functions.loss(theta, 0)[row], expected)


def test_functions_on_a_graph_see_the_classes_of_different_nodes() -> None:
    functions = drawn("graph")
    nodes, _ = functions.minibatch(0)
    assert not functions.stochastic
    assert nodes.shape == (3, 8)
    assert len({frozenset(own) for own in nodes.tolist()}) == 3
    assert all(len(set(own)) == 8 for own in nodes.tolist())


# Tables


@pytest.mark.parametrize("table", ["breast_cancer", "digits", "iris", "wine", "diabetes"])
def test_tables_are_standardised_by_what_is_trained_on(table: str) -> None:
    task = made("tabular_logistic", f"task.data.name={table}", "task.batch_size=null")
    features, targets = task._examples["train"]
    varied = features.double().std(0) > 0
    standard = features.double()[:, varied]
    torch.testing.assert_close(standard.mean(0), torch.zeros_like(standard[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones_like(standard[0]), atol=1e-5, rtol=0)
    functions = task.sample("train", 2, seeded())
    assert not functions.stochastic
    start = functions.loss(functions.initial_parameters, 0)
    if table == "diabetes":
        assert targets.std().item() == pytest.approx(1, abs=1e-5)
    assert start.isfinite().all()
    assert task.data_description()["name"] == table


def test_without_scikit_learn_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataUnavailable, match=r"pip install 'l2lgd\[tabular\]'"):
        made("tabular_logistic", "task.data.name=iris", "task.batch_size=7")


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("autoencoder", "loss=hinge", "loss=hinge: choose one of mse"),
        ("autoencoder", "hidden_layers=[0]", "hidden_layers=.0.: must be at least 1"),
        ("vae", "activation=gale", "activation=gale: choose one of"),
        ("vit", "heads=3", "heads=3: must divide width=32"),
        ("resnet", "channels=[]", "needs at least one stage"),
        ("resnet", "norm=layer", "norm=layer: choose one of"),
        ("pinn", "activation=relu", "activation=relu: choose one of tanh"),
        ("lm_gru", "alphabet=1", "alphabet=1: must be at least 2"),
        ("mlp", "activation=gale", "activation=gale: choose one of sigmoid, relu, tanh, gelu"),
        ("lenet", "channels=[]", "needs at least one convolution"),
        ("matrix_factorisation", "observed=1", "observed=1.0: must leave some"),
        ("matrix_factorisation", "initial_std=0", "initial_std=0.0: must be positive"),
        ("matrix_factorisation", "fit_rank=0", "fit_rank=0: must be at least 1"),
        ("graph", "labelled=12", "labelled=12: there are 11 nodes in a split"),
        ("quadratic_noisy", "noise=0", "noise=0.0: must be positive"),
        ("tabular_mlp", "data.name=boston", "name=boston: choose one of"),
    ],
)
def test_options_that_do_not_do(name: str, option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(node("evaluate", "task", f"task={name}", "opt=adam", f"task.{option}"), "task")
