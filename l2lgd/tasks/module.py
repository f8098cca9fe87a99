"""Any module of PyTorch as a task: B copies with weights of their own, stacked by themselves."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from l2lgd.data.examples import Examples, counts, load_examples
from l2lgd.data.images import load_images
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError, DataUnavailable, UserError, one_line
from l2lgd.seeding import derive_seed, generator
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.functional import FunctionalModule, Loss, constants_of, explained
from l2lgd.tasks.minibatches import JoinedMinibatches, Minibatches, OneMinibatch, Streams
from l2lgd.tasks.trial import try_out

log = logging.getLogger(__name__)

NOISE_ROWS = 2**16  # of normal numbers, from which the noise of minibatches is drawn


@dataclass(frozen=True)
class Source:
    """Tensors, and which of their rows are in the minibatches."""

    tensors: Examples
    minibatches: Streams

    def at(self, index: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Each (B, batch, …); images of whole numbers become numbers from 0 to 1."""
        parts = [tensor[index] for tensor in self.tensors]
        scaled = [p.to(dtype) / 255 if p.dtype == torch.uint8 else p for p in parts]
        return [p.to(dtype) if p.is_floating_point() else p for p in scaled]


class Modules(Optimizee):
    """B modules of one kind, each trained on its own stream of minibatches.

    Args:
        network: what they are.
        sources: of the minibatch's tensors, one after the other; the targets are the last tensor
            of the first source.
        constants: what is not trained, each (B, …).
        initial_parameters: (B, n).
        at_once: functions whose gradients are computed together; None for all.
    """

    def __init__(
        self,
        network: FunctionalModule,
        sources: Sequence[Source],
        constants: Mapping[str, Tensor],
        initial_parameters: Tensor,
        stochastic: bool = True,
        at_once: int | None = None,
    ) -> None:
        self.network, self.sources, self.constants = network, tuple(sources), dict(constants)
        self.initial_parameters, self.shapes = initial_parameters, network.shapes
        self.stochastic, self.at_once = stochastic, at_once

    def prefetch(self, steps: range) -> None:
        for source in self.sources:
            source.minibatches.prefetch(steps)

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        return tuple(source.minibatches.index(step) for source in self.sources)

    def on(self, inputs: tuple[Tensor, ...]) -> "Modules":
        fixed = [OneMinibatch(index) for index in inputs]
        return self._with(fixed, self.constants, self.initial_parameters)

    def minibatch(self, step: int) -> tuple[Tensor, ...]:
        """What the module is given, and last the targets, each (B, batch, …)."""
        dtype = self.initial_parameters.dtype
        first, *others = (s.at(s.minibatches.index(step), dtype) for s in self.sources)
        return (*first[:-1], *(tensor for part in others for tensor in part), first[-1])

    def loss(self, parameters: Tensor, step: int) -> Tensor:
        return self.network.losses(self.unpack(parameters), self.constants, self.minibatch(step))

    def loss_and_gradient(self, parameters: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self._fits(len(parameters)):
            return super().loss_and_gradient(parameters, step)
        parts = self._in_parts(step)
        found = [part.loss_and_gradient(parameters[rows], step) for rows, part in parts]
        losses, gradients = (torch.cat(each) for each in zip(*found, strict=True))
        return losses, gradients

    def hessian_product(self, parameters: Tensor, step: int, vector: Tensor) -> Tensor:
        if not self._fits(len(parameters)):
            parts = self._in_parts(step)
            found = [p.hessian_product(parameters[rows], step, vector[rows]) for rows, p in parts]
            return torch.cat(found)
        try:
            return super().hessian_product(parameters, step, vector)
        except RuntimeError as error:
            kind = type(self.network.module).__name__
            raise ConfigError(
                f"{kind} has no second derivatives ({explained(error)}); take "
                "estimator.second_derivatives=false"
            ) from error

    def _fits(self, count: int) -> bool:
        """May so many functions be evaluated at once?"""
        return self.at_once is None or count <= self.at_once

    def _in_parts(self, step: int) -> Iterator[tuple[slice, "Modules"]]:
        """No more functions each than fit in memory, at a step whose minibatch is drawn once."""
        assert self.at_once is not None
        at, count = self.on(self.inputs(step)), len(self.initial_parameters)
        for begin in range(0, count, self.at_once):
            rows = slice(begin, min(begin + self.at_once, count))
            yield rows, at.select(rows)

    def select(self, rows: slice) -> Self:
        own = [source.minibatches.select(rows) for source in self.sources]
        constants = {name: tensor[rows] for name, tensor in self.constants.items()}
        return self._with(own, constants, self.initial_parameters[rows])

    def joined(self, parts: Sequence[Self], begun: Sequence[int]) -> Self | None:
        if any(part.network is not self.network for part in parts):
            return None
        if any(p.sources[0].tensors is not self.sources[0].tensors for p in parts):
            return None
        streams = [
            JoinedMinibatches([part.sources[k].minibatches for part in parts], begun)
            for k in range(len(self.sources))
        ]
        constants = {n: torch.cat([part.constants[n] for part in parts]) for n in self.constants}
        initial = torch.cat([part.initial_parameters for part in parts])
        return self._with(streams, constants, initial)

    def on_examples(self, sources: Sequence[Source]) -> "Modules":
        """The same functions with other sources of minibatches."""
        fixed = (self.constants, self.initial_parameters, self.stochastic, self.at_once)
        return Modules(self.network, sources, *fixed)

    def _with(
        self, streams: Sequence[Streams], constants: Mapping[str, Tensor], initial: Tensor
    ) -> Self:
        pairs = zip(self.sources, streams, strict=True)
        sources = [Source(source.tensors, own) for source, own in pairs]
        return type(self)(self.network, sources, constants, initial, self.stochastic, self.at_once)


class ModuleTask(Task):
    """A module of PyTorch, trained on examples.

    Its initial weights are those that it draws itself when it is built. Normalisation uses the
    statistics of minibatches. Where ``torch.vmap`` cannot stack a module, such as ``nn.LSTM``, its
    functions run one after the other.

    Args:
        module: builds an ``nn.Module``. It is called once the data are loaded, so a class of tasks
            may hand over a method of its own that asks for ``image_shape`` and ``num_classes``.
        loss: ``cross_entropy`` of logits with the classes last, and labels; ``mse``;
            ``binary_cross_entropy`` of logits and probabilities; ``module`` where the module is
            given the whole minibatch and returns its loss, (); or a function of outputs and
            targets → ().
        data: images of a data set of torchvision, (channels, height, width) from 0 to 1, with
            their labels.
        dataset: makes other examples, see :func:`l2lgd.data.examples.load_examples`; one of both.
        batch_size: examples in a minibatch; None for all examples at every step.
        noise: the module is also given so many normal numbers for each example, in a tensor
            (batch, noise) before the targets.

    Raises:
        ConfigError: an option is out of range, or the module does not do.
    """

    not_in_keys = ("data",)
    _at_once: int | None = None  # functions; found out by trial

    def __init__(
        self,
        name: str,
        module: Callable[..., nn.Module],
        loss: str | Loss = "cross_entropy",
        data: DataConfig | None = None,
        dataset: Callable[..., object] | None = None,
        batch_size: int | None = 64,
        noise: int = 0,
    ) -> None:
        if isinstance(module, nn.Module):
            raise ConfigError("module: give what builds one, such as its class, for B to be built")
        if (data is None) == (dataset is None):
            raise ConfigError("data: needs data, images by name, or dataset, examples of your own")
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: must be at least 1, or null")
        if noise < 0:
            raise ConfigError(f"noise={noise}: must not be negative")
        self.name, self.module, self.loss = name, module, loss
        self.data, self.dataset = data, dataset
        self.batch_size, self.noise = batch_size, noise

    def setup(
        self, data_dir: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        super().setup(data_dir, device, dtype)
        self._examples, self._description = self._load(data_dir)
        if self.noise:
            draw = generator(0, "noise")
            table = torch.randn(NOISE_ROWS, self.noise, generator=draw)
            self._noise = (table.to(device, dtype),)
        try:
            self.network = FunctionalModule(self._built(0).to(device), self.loss)
            if device.type != "meta":  # which has no numbers to try
                functions = self.sample("train", 2, generator(0, "trial"))
                modules = [self._built(seed).to(device) for seed in (1, 2)]
                for row, module in enumerate(modules):
                    own = functions.select(slice(row, row + 1))
                    pieces = own.unpack(own.initial_parameters)
                    self.network.load(module, pieces, own.constants)
                batch = functions.minibatch(0)
                self._at_once = try_out(self.network, functions, batch, modules)
        except ConfigError as error:
            raise ConfigError(f"task.{error}") from error

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Modules:
        modules = [self._built(_seed(generator)) for _ in range(num_functions)]
        initial = torch.cat([self.network.flat(module) for module in modules])
        seed = derive_seed(_seed(generator), split)
        sources = self._sources(self._examples[split], num_functions, seed)
        constants = _stacked([constants_of(module) for module in modules])
        return Modules(
            self.network,
            sources,
            {name: tensor.to(self.device) for name, tensor in constants.items()},
            initial.to(self.device, self.dtype),
            self.batch_size is not None or self.noise > 0,
            self._at_once,
        )

    def held_out(
        self, functions: Optimizee, split: Split, generator: torch.Generator
    ) -> Modules | None:
        if not isinstance(functions, Modules) or functions.network is not self.network:
            return None
        seed = derive_seed(_seed(generator), split)
        count = len(functions.initial_parameters)
        sources = self._sources(self._others(functions, split), count, seed)
        return functions.on_examples(sources)

    def data_description(self) -> dict[str, object] | None:
        return self._description

    @property
    def image_shape(self) -> torch.Size:
        """Channels, height and width of the images."""
        return self._examples["train"][0].shape[1:]

    @property
    def num_classes(self) -> int:
        """Of the images."""
        return self._num_classes

    def _load(self, data_dir: str) -> tuple[dict[str, Examples], dict[str, object]]:
        """The splits on the device, and what they are."""
        if self.data is not None:
            images = load_images(self.data, data_dir, self.device)
            self._num_classes = images["train"].num_classes
            parts: dict[str, Examples] = {
                split: (_channels_first(part.pixels), part.labels)
                for split, part in images.parts.items()
            }
            return parts, images.description
        assert self.dataset is not None
        with _of_somebody("task.dataset: it cannot be made"):
            try:
                parts = load_examples(self.dataset())
            except OSError as error:
                raise DataUnavailable(f"task.dataset: {error}") from error
            except ConfigError as error:
                raise ConfigError(f"task.{error}") from error
        if self.loss == "cross_entropy":
            parts = {split: (*part[:-1], _labels(part[-1])) for split, part in parts.items()}
        kind = getattr(self.dataset, "func", self.dataset)
        name = getattr(kind, "__qualname__", type(kind).__name__)
        moved = {
            split: tuple(tensor.to(self.device) for tensor in part) for split, part in parts.items()
        }
        return moved, {"name": name, "source": "dataset", "num_examples": counts(parts)}

    def _others(self, functions: Modules, split: Split) -> Examples:
        """What functions are given in place of their own examples."""
        return self._examples[split]

    def _sources(self, examples: Examples, num_functions: int, seed: int) -> list[Source]:
        """Minibatches of these examples, and their noise."""
        sources = [Source(examples, self._minibatches(len(examples[0]), num_functions, seed))]
        if self.noise:
            own = derive_seed(seed, "noise")
            size = self.batch_size or len(examples[0])
            streams = Minibatches(NOISE_ROWS, size, own, num_functions, device=self.device)
            sources.append(Source(self._noise, streams))
        return sources

    def _built(self, seed: int) -> nn.Module:
        """A module with the initial weights of a seed, on the CPU."""
        with torch.random.fork_rng(devices=[]), _of_somebody("module: it cannot be built"):
            torch.default_generator.manual_seed(seed)
            module = self.module()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"module: it builds {type(module).__name__}, not an nn.Module")
        module._apply(self._converted)
        return module

    def _converted(self, tensor: Tensor) -> Tensor:
        """In the type of the task; what is complex stays so."""
        if tensor.is_complex():
            return tensor.to(self.dtype.to_complex())
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _minibatches(self, count: int, num_functions: int, seed: int) -> Streams:
        if self.batch_size is None:
            return OneMinibatch(torch.arange(count, device=self.device).expand(num_functions, -1))
        return Minibatches(count, self.batch_size, seed, num_functions, device=self.device)


@contextlib.contextmanager
def _of_somebody(what_fails: str) -> Iterator[None]:
    """Have what goes wrong in somebody's own code be one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(f"{what_fails}: {type(error).__name__}: {one_line(error)}") from error


def _labels(targets: Tensor) -> Tensor:
    return targets if targets.is_floating_point() else targets.long()


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


def _stacked(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each (B, …); without copies where all functions have the same."""
    first = each[0]
    same = {n: all(own[n].equal(tensor) for own in each) for n, tensor in first.items()}
    return {
        name: tensor.expand(len(each), *tensor.shape)
        if same[name]
        else torch.stack([own[name] for own in each])
        for name, tensor in first.items()
    }


def _channels_first(pixels: Tensor) -> Tensor:
    """(N, height, width) or (N, height, width, 3) → (N, channels, height, width)."""
    return pixels.unsqueeze(1) if pixels.dim() == 3 else pixels.movedim(-1, 1).contiguous()
