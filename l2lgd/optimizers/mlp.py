"""One small MLP for every parameter, which sees what Adafactor keeps.

The learned optimizer "small_fc" (Metz et al., Practical tradeoffs between memory, compute, and
performance in learned optimizers, 2022), and with other options the rules of Celo and Celo2
(Moudgil et al., 2025 and 2026).
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.kernels import mlp as kernel
from l2lgd.optimizers.accumulators import Accumulators, Decays, advanced, axes, factors, zeros
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.initial_weights import truncated_normal
from l2lgd.optimizers.observation import Observation

MOMENTA, FACTORED = (0.9, 0.99, 0.999), (0.9, 0.99, 0.999)
# Inputs and how many numbers each has, in the order of a tensor's features.
INPUTS = {
    "gradient": 1,
    "clipped_gradient": 1,
    "parameter": 1,
    "momentum": 3,
    "second_moment": 1,
    "scaled_momentum": 3,
    "inverse_root": 1,
    "factored_gradient": 3,
    "scaled_gradient": 1,
    "row": 3,
    "column": 3,
    "inverse_root_row": 3,
    "inverse_root_column": 3,
    "factored_momentum": 3,
}
SMALL_FC = tuple(name for name in INPUTS if name not in ("clipped_gradient", "scaled_gradient"))
NORMALISATIONS = ("tensor", "matrix")
BACKENDS = ("auto", "torch")
TIME = "time"  # its inputs, beside those above
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5)  # steps
CLIPPED = 0.1  # bound of the clipped gradient
SENSITIVITY = 10.0  # of the logarithm of 1 − β to a weight
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
ROOT_EPSILON = 1e-8  # of the inverse roots of rows and columns, within
SCALE_EPSILON = 1e-9  # of the size of a tensor, within the root
OUTPUT_EPSILON = 1e-9  # of the size of an update, within the root

State = tuple[Accumulators, ...]  # one a tensor


class MLPWeights(NamedTuple):
    """φ; where each function has its own, with dimensions (B, …)."""

    weights: Iterable[Tensor]  # of each layer (inputs, outputs)
    biases: Iterable[Tensor]
    decay_shifts: Tensor | None  # (7,) or (B, 7)


class MLPRule(LearnedRule[State]):
    """g = −step_size · o₀ · exp(magnitude · o₁), with outputs o of one MLP for all parameters.

    The defaults are small_fc. Each input is divided by its root mean square over a tensor, so
    coordinates of a tensor share information. Weights are (…, inputs, outputs): of a square matrix,
    rows and columns have roles of their own, which its transpose would turn round.

    Args:
        hidden_sizes: units of the hidden layers (ReLU).
        outputs: o₀, o₁, and more that are not used.
        inputs: some of ``INPUTS``.
        vector_inputs: so many of the features of matrices do vectors have; None for all.
        time: also see tanh(t/τ − 1) for eleven τ from 1 to 10⁵ steps.
        second_moment_decay: β of the second moment.
        learned_decays: are all β trained?
        second_moment_epsilon: within the inverse root of the second moment.
        diagonal_epsilon: within that which scales momenta of vectors.
        gradient_clip: gradients beyond it are cut; None for none.
        normalise_over: inputs are normalised over a whole ``tensor`` or each ``matrix``, its last
            two axes.
        normalisation_epsilon: within the root.
        step_size: factor on all updates.
        magnitude: factor on o₁ in the exponent.
        scale_by_parameter: multiply the update with the root mean square of its tensor.
        orthogonalise: updates of matrices go through Newton–Schulz iterations.
        normalise_update: divide the update by its root mean square.
        backend: ``auto`` runs steps without autograd in compiled code where that can be had,
            ``torch`` never; the numbers are the same to rounding.

    Raises:
        ConfigError: an option is out of range.
    """

    observes = ("parameters", "step")
    start_decays: Tensor
    least_decays: Tensor
    largest_decays: Tensor
    time_scales: Tensor

    def __init__(
        self,
        hidden_sizes: list[int] | None = None,
        outputs: int = 2,
        inputs: list[str] | None = None,
        vector_inputs: int | None = None,
        time: bool = True,
        second_moment_decay: float = 0.999,
        learned_decays: bool = True,
        second_moment_epsilon: float = 1e-6,
        diagonal_epsilon: float = 1e-6,
        gradient_clip: float | None = None,
        normalise_over: str = "tensor",
        normalisation_epsilon: float = 1e-5,
        step_size: float = 1e-3,
        magnitude: float = 1e-3,
        scale_by_parameter: bool = False,
        orthogonalise: bool = False,
        normalise_update: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        hidden = [4, 4] if hidden_sizes is None else list(hidden_sizes)
        self.inputs = list(SMALL_FC if inputs is None else inputs)
        for name in self.inputs:
            if name not in INPUTS:
                raise ConfigError(f"inputs: there is no {name}; choose among {', '.join(INPUTS)}")
        if normalise_over not in NORMALISATIONS:
            known = ", ".join(NORMALISATIONS)
            raise ConfigError(f"normalise_over={normalise_over}: choose one of {known}")
        if backend not in BACKENDS:
            raise ConfigError(f"backend={backend}: choose one of {', '.join(BACKENDS)}")
        if len(set(self.inputs)) < len(self.inputs):
            raise ConfigError(f"inputs={self.inputs}: each at most once")
        if not self.inputs or outputs < 2 or any(size < 1 for size in hidden):
            raise ConfigError("an MLP needs inputs, 2 outputs at least, and units in each layer")
        if not 0 <= second_moment_decay < 1:
            raise ConfigError(f"second_moment_decay={second_moment_decay}: must be from 0 to 1")
        for name, value in (("step_size", step_size), ("gradient_clip", gradient_clip)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value}: must be positive")
        self.num_features = sum(INPUTS[name] for name in self.inputs)
        if vector_inputs is not None and not 1 <= vector_inputs <= self.num_features:
            raise ConfigError(f"vector_inputs={vector_inputs}: must be 1 to {self.num_features}")
        self.vector_inputs, self.time = vector_inputs or self.num_features, time
        self._num_times = len(TIME_SCALES) * time
        self.second_moment_epsilon, self.diagonal_epsilon = second_moment_epsilon, diagonal_epsilon
        self.gradient_clip, self.normalise_over = gradient_clip, normalise_over
        self.normalisation_epsilon = normalisation_epsilon
        self.step_size, self.magnitude = step_size, magnitude
        self.scale_by_parameter = scale_by_parameter
        self.orthogonalise, self.normalise_update = orthogonalise, normalise_update
        self.backend = backend
        widths = [self.num_features + self._num_times, *hidden, outputs]
        self._settings = kernel.MLPSettings(
            tuple(map(list(INPUTS).index, self.inputs)),
            tuple(widths),
            self.vector_inputs,
            time,
            second_moment_epsilon,
            diagonal_epsilon,
            gradient_clip,
            normalise_over,
            normalisation_epsilon,
            step_size,
            magnitude,
            scale_by_parameter,
            orthogonalise,
            normalise_update,
        )
        pairs = list(itertools.pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(pair) for pair in pairs)  # (inputs, outputs)
        self.biases = nn.ParameterList(torch.empty(pair[1]) for pair in pairs)
        decays = (*MOMENTA, second_moment_decay, *FACTORED)
        self.register_buffer("start_decays", torch.tensor(decays), persistent=False)
        # Those of momenta have no bounds.
        bounds = ((-math.inf, 0.0), (math.inf, 1.0))
        for name, (momentum, other) in zip(("least", "largest"), bounds, strict=True):
            bound = [momentum] * len(MOMENTA) + [other] * (len(decays) - len(MOMENTA))
            self.register_buffer(f"{name}_decays", torch.tensor(bound), persistent=False)
        self.register_buffer("time_scales", torch.tensor(TIME_SCALES), persistent=False)
        if learned_decays:
            self.decay_shifts = nn.Parameter(torch.zeros(len(decays)))
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._stacked: MLPWeights | None = None
        self._known_rows: dict[tuple[str, ...], Tensor] = {}
        self.reset_parameters(torch.Generator().manual_seed(0))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Truncated normal of standard deviation 1/√fan-in, biases zero, decays at their start."""
        for weight in self.weights:
            truncated_normal(weight, 1 / math.sqrt(len(weight)), generator)
        for bias in self.biases:
            bias.zero_()
        if hasattr(self, "decay_shifts"):
            self.decay_shifts.zero_()

    @torch.no_grad()
    def scale_updates(self, factor: float) -> None:
        if self.normalise_update:
            super().scale_updates(factor)
        self.weights[-1][:, 0].mul_(factor)
        self.biases[-1][0].mul_(factor)

    @property
    def tensorwise(self) -> bool:
        return True

    def named(self, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        bound = copy.copy(self)  # shallow: meta-training has to change the same weights
        bound._shapes = tuple(tuple(shape) for shape in shapes.values())
        return bound

    def stacked(self, phi: Sequence[Tensor]) -> "MLPRule":
        bound = copy.copy(self)
        names = [name for name, _ in self.named_parameters()]
        own = dict(zip(names, phi, strict=True))
        depth = range(len(self.weights))
        bound._known_rows = {}
        bound._stacked = MLPWeights(
            [own[f"weights.{k}"] for k in depth],
            [own[f"biases.{k}"] for k in depth],
            own.get("decay_shifts"),
        )
        return bound

    def _own(self) -> MLPWeights:
        if self._stacked is not None:
            return self._stacked
        return MLPWeights(self.weights, self.biases, getattr(self, "decay_shifts", None))

    def initial_state(self, parameters: Tensor) -> State:
        tensors = self._tensors(parameters)
        return tuple(zeros(tensor, len(MOMENTA), len(FACTORED)) for tensor in tensors)

    def step(
        self,
        gradient: Tensor,
        state: State,
        width: Tensor | None = None,
        seen: Observation | None = None,
    ) -> tuple[Tensor, State]:
        assert seen is not None
        compiled = None if torch.is_grad_enabled() else self._compiled(gradient, state, seen)
        if compiled is not None:
            return compiled
        if self.gradient_clip is not None:
            gradient = gradient.clamp(-self.gradient_clip, self.gradient_clip)
        decays, bias = self._split_decays(), self._first_bias(seen)
        updates, following = [], []
        pairs = zip(self._tensors(gradient), self._tensors(seen.parameters), strict=True)
        for (own, theta), before in zip(pairs, state, strict=True):
            kept = advanced(before, own, decays)
            updates.append(self._update(own, theta, kept, bias).flatten(1))
            following.append(kept)
        return torch.cat(updates, 1), tuple(following)

    def step_in_place(
        self, gradient: Tensor, state: State, seen: Observation | None = None
    ) -> Tensor:
        assert seen is not None
        compiled = self._compiled(gradient, state, seen, in_place=True)
        return super().step_in_place(gradient, state, seen) if compiled is None else compiled[0]

    def implementation(self) -> str:
        return kernel.LANGUAGE if self._has_kernel() else super().implementation()

    def _has_kernel(self) -> bool:
        on_cpu = self.start_decays.device.type == "cpu"
        return self.backend == "auto" and on_cpu and kernel.is_available()

    @torch.no_grad()
    def _compiled(
        self, gradient: Tensor, state: State, seen: Observation, in_place: bool = False
    ) -> tuple[Tensor, State] | None:
        """The step by the kernel; None where it cannot be had."""
        if not self._has_kernel():
            return None
        shapes = tuple(shape or (1,) for shape in self._shapes or ((gradient.shape[1],),))
        weights, biases, _ = self._own()
        found = kernel.step(
            self._settings,
            kernel.Tensors(shapes, tuple(map(axes, shapes))),
            kernel.Phi(list(zip(weights, biases, strict=True)), self._decays()),
            seen.number,
            gradient.contiguous().resolve_neg(),
            seen.parameters.contiguous().resolve_neg(),
            state,
            in_place,
        )
        if found is None:
            return None
        update, following = found
        if self.orthogonalise:
            finished = [
                piece if piece.dim() == 2 else self._finished(piece)
                for piece in self._tensors(update)
            ]
            update = torch.cat([piece.flatten(1) for piece in finished], 1)
        return update, tuple(Accumulators(*parts) for parts in following)

    def _tensors(self, flat: Tensor) -> list[Tensor]:
        """(B, n) → (B, *shape) of each tensor; a scalar is a vector of one number."""
        shapes = self._shapes or ((flat.shape[1],),)
        pieces = flat.split([torch.Size(shape).numel() for shape in shapes], 1)
        pairs = zip(pieces, shapes, strict=True)
        return [piece.unflatten(1, shape or (1,)) for piece, shape in pairs]

    def _decays(self) -> Tensor:
        """β (7,) or (B, 7)."""
        decays, shifts = self.start_decays, self._own().decay_shifts
        if shifts is not None:
            decays = 1 - (1 - decays) * torch.exp(SENSITIVITY * shifts)
        return decays.clamp(self.least_decays, self.largest_decays)

    def _split_decays(self) -> Decays:
        return Decays(*self._decays().split([len(MOMENTA), 1, len(FACTORED)], -1))

    def _first_bias(self, seen: Observation) -> Tensor:
        """Of the first layer, with what it sees of time; (H,) or (B, H)."""
        bias: Tensor = next(iter(self._own().biases))
        if not self.time:
            return bias
        times = torch.tanh((seen.number.unsqueeze(-1) - 1) / self.time_scales - 1)
        return bias + (times.reshape(-1, 1, len(TIME_SCALES)) @ self._rows((TIME,))).squeeze(1)

    def _rows(self, names: tuple[str, ...]) -> Tensor:
        """Those of the first layer's weights that some inputs go through, (…, F, H)."""
        if names in self._known_rows:
            return self._known_rows[names]
        sizes = [*map(INPUTS.__getitem__, self.inputs), self._num_times]
        pieces = next(iter(self._own().weights)).split(sizes, -2)
        own = dict(zip((*self.inputs, TIME), pieces, strict=True))
        found = torch.cat([own[name] for name in names], -2)
        if self._stacked is not None and not found.requires_grad:
            self._known_rows[names] = found  # as its weights never change
        return found

    def _update(self, gradient: Tensor, theta: Tensor, kept: Accumulators, bias: Tensor) -> Tensor:
        """g_t of one tensor, (B, *shape)."""
        features = self._features(gradient, theta, kept)
        outputs = self._network(features, bias, gradient.shape[1:])  # (B, O, n)
        update = outputs[:, 0]
        if self.magnitude:
            update = update * torch.exp(self.magnitude * outputs[:, 1])
        if self.scale_by_parameter:
            size = theta.flatten(1).square().mean(1, keepdim=True) + SCALE_EPSILON
            update = update * size.sqrt()
        return self._finished(update.reshape(gradient.shape))

    def _finished(self, update: Tensor) -> Tensor:
        """g_t of one tensor, of what its coordinates would have alone."""
        vector = update.dim() == 2
        if self.orthogonalise and not vector:
            update = newton_schulz(update)
        if self.normalise_update:
            dims = (-1,) if vector else (-2, -1)
            update = update * (OUTPUT_EPSILON + update.square().mean(dims, keepdim=True)).rsqrt()
        return -self.step_size * update

    def _network(self, features: Mapping[str, Tensor], bias: Tensor, shape: torch.Size) -> Tensor:
        """Of one tensor, (B, O, n)."""
        (_, *weights), (_, *biases), _ = self._own()
        hidden = self._first_layer(features, bias, shape)
        for weight, bias in zip(weights, biases, strict=True):
            product = torch.bmm if weight.dim() == 3 else torch.matmul
            hidden = product(weight.mT, torch.relu(hidden)).add_(bias.unsqueeze(-1))
        return hidden

    def _first_layer(
        self, features: Mapping[str, Tensor], bias: Tensor, shape: torch.Size
    ) -> Tensor:
        """(B, k, *shape) each → (B, H, n). Its weights normalise the features.

        Those that are the same along an axis of a matrix are multiplied without it.
        """
        groups: dict[torch.Size, list[str]] = {}
        for name in self.inputs:
            groups.setdefault(features[name].shape[2:], []).append(name)
        dims = len(shape)
        units = bias.shape[-1]
        total: Tensor = bias.reshape(-1, units, *[1] * dims)
        for own_shape, names in sorted(groups.items(), key=lambda group: math.prod(group[0])):
            joined = torch.cat([features[name] for name in names], 1)
            weight = self._rows(tuple(names))
            if dims == 1:
                joined = joined[:, : self.vector_inputs]
                weight = weight[..., : self.vector_inputs, :]
            leading = dims - 2 if self.normalise_over == "matrix" and dims > 2 else 0
            # Slices of M coordinates each that are normalised apart, (B, S, F, M).
            sizes = math.prod(own_shape[:leading]), math.prod(own_shape[leading:])
            slices = joined.reshape(*joined.shape[:2], *sizes).transpose(1, 2)
            size = (self.normalisation_epsilon + mean_square(slices)).rsqrt()  # (B, S, F)
            scaled = size.unsqueeze(3) * weight.unsqueeze(-3)  # (B, S, F, H)
            outputs = torch.bmm(scaled.flatten(0, 1).mT, slices.flatten(0, 1))
            outputs = outputs.unflatten(0, size.shape[:2]).transpose(1, 2)  # (B, H, S, M)
            total = total + outputs.reshape(len(joined), units, *own_shape)
        return total.expand(-1, -1, *shape).flatten(2)

    def _features(self, gradient: Tensor, theta: Tensor, kept: Accumulators) -> dict[str, Tensor]:
        """(B, k, *shape) of each input, not yet normalised; 1 for axes it is the same along."""
        own, shape = gradient.unsqueeze(1), tuple(gradient.shape[1:])
        root = (kept.second_moment + self.second_moment_epsilon).rsqrt()
        row, column, scale = factors(kept, shape)
        of_momenta = scale if len(shape) > 1 else (kept.row + self.diagonal_epsilon).rsqrt()
        made = {
            "gradient": lambda: own,
            "clipped_gradient": lambda: own.clamp(-CLIPPED, CLIPPED),
            "parameter": lambda: theta.unsqueeze(1),
            "momentum": lambda: kept.momentum,
            "second_moment": lambda: kept.second_moment,
            "scaled_momentum": lambda: kept.momentum * root,
            "inverse_root": lambda: root,
            "factored_gradient": lambda: own * scale,
            "scaled_gradient": lambda: own * root,
            "row": lambda: row,
            "column": lambda: column,
            "inverse_root_row": lambda: (row + ROOT_EPSILON).rsqrt(),
            "inverse_root_column": lambda: (column + ROOT_EPSILON).rsqrt(),
            "factored_momentum": lambda: kept.momentum * of_momenta,
        }
        return {name: made[name]() for name in self.inputs}


def mean_square(x: Tensor) -> Tensor:
    """Over the last axis."""
    if torch.is_grad_enabled():  # a norm has no second derivatives at zero
        return x.square().mean(-1)
    size: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return size.square() / x.shape[-1]


def newton_schulz(matrices: Tensor) -> Tensor:
    """Towards the orthogonal factors of matrices (…, rows, columns)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.flatten(-2).norm(dim=-1)[..., None, None] + 1e-8)
    one, two, three = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        product = x @ x.mT
        x = one * x + (two * product + three * product @ product) @ x
    return x.mT if tall else x
