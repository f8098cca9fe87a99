"""Autoencoders and variational autoencoders of images."""

from abc import abstractmethod

from torch import Tensor, nn
from torch.nn import functional

from l2lgd.data.examples import Examples
from l2lgd.data.sources import DataConfig
from l2lgd.errors import ConfigError
from l2lgd.tasks.layers import at_least_one, known_activation, perceptron
from l2lgd.tasks.module import ModuleTask

RECONSTRUCTION = ("mse", "binary_cross_entropy")


class Autoencoder(nn.Module):
    """Perceptrons from the pixels to a code and, with the same widths, back.

    Args:
        widths: of the pixels, of hidden layers, and of the code.
        loss: mean over pixels of ``mse``, with outputs squashed to (0, 1), or of
            ``binary_cross_entropy``.
    """

    def __init__(self, widths: list[int], activation: str, loss: str = "mse") -> None:
        super().__init__()
        self.loss = loss
        self.encoder = perceptron(widths, activation)
        self.decoder = perceptron(widths[::-1], activation)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → the mean loss, ()."""
        pixels = images.flatten(1)
        logits = self.decoder(self.encoder(pixels))
        if self.loss == "mse":
            return functional.mse_loss(logits.sigmoid(), pixels)
        return functional.binary_cross_entropy_with_logits(logits, pixels)


class VariationalAutoencoder(nn.Module):
    """A Gaussian code and Bernoulli pixels (Kingma and Welling 2014, section 3 and appendix C).

    Args:
        widths: of the pixels, of hidden layers, and of the code.
    """

    def __init__(self, widths: list[int], activation: str) -> None:
        super().__init__()
        self.encoder = perceptron([*widths[:-1], 2 * widths[-1]], activation)
        self.decoder = perceptron(widths[::-1], activation)

    def forward(self, noise: Tensor, images: Tensor) -> Tensor:
        """The negative evidence lower bound, in nats per pixel.

        Args:
            noise: standard normal numbers (batch, code).
            images: (batch, channels, height, width) from 0 to 1.
        """
        pixels = images.flatten(1)
        mean, log_variance = self.encoder(pixels).chunk(2, dim=1)
        code = mean + (0.5 * log_variance).exp() * noise
        reconstruction = functional.binary_cross_entropy_with_logits(self.decoder(code), pixels)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        found: Tensor = reconstruction + divergence / pixels.shape[1]
        return found


class ReconstructionTask(ModuleTask):
    """What both tasks share: images without labels, and the widths of layers."""

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        code: int,
        activation: str,
        batch_size: int | None,
        noise: int = 0,
    ) -> None:
        at_least_one(hidden_layers=hidden_layers, code=code)
        super().__init__(name, self.build, "module", data, None, batch_size, noise)
        self.hidden_layers, self.code = list(hidden_layers), code
        self.activation = known_activation(activation)

    @abstractmethod
    def build(self) -> nn.Module:
        """A module with weights of PyTorch's own generator, once the data are loaded."""

    def widths(self) -> list[int]:
        """Of the pixels, of hidden layers, and of the code."""
        return [self.image_shape.numel(), *self.hidden_layers, self.code]

    def _load(self, data_dir: str) -> tuple[dict[str, Examples], dict[str, object]]:
        parts, description = super()._load(data_dir)
        return {split: (images,) for split, (images, _) in parts.items()}, description


class AutoencoderTask(ReconstructionTask):
    """Autoencoders (Hinton and Salakhutdinov 2006), which say what they are given.

    With sigmoid or tanh, hand-designed optimizers stay at the mean image for hundreds of steps.

    Args:
        data: which images, and where they come from.
        hidden_layers: units of the encoder's; the decoder has the same in reverse.
        code: numbers between encoder and decoder.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        loss: ``mse`` of pixels from 0 to 1, or ``binary_cross_entropy``.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        code: int = 8,
        activation: str = "relu",
        loss: str = "mse",
        batch_size: int | None = 64,
    ) -> None:
        if loss not in RECONSTRUCTION:
            raise ConfigError(f"loss={loss}: choose one of {', '.join(RECONSTRUCTION)}")
        super().__init__(name, data, hidden_layers, code, activation, batch_size)
        self.reconstruction = loss

    def build(self) -> Autoencoder:
        """See :class:`ReconstructionTask`."""
        return Autoencoder(self.widths(), self.activation, self.reconstruction)


class VariationalAutoencoderTask(ReconstructionTask):
    """Variational autoencoders. The noise of a step belongs to it, as its minibatch does.

    Args:
        data: which images, and where they come from.
        hidden_layers: units of the encoder's; the decoder has the same in reverse.
        code: numbers of the code, each with a mean and a variance.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        batch_size: images in a minibatch; None for all images at every step.
    """

    def __init__(
        self,
        name: str,
        data: DataConfig,
        hidden_layers: list[int],
        code: int = 4,
        activation: str = "relu",
        batch_size: int | None = 64,
    ) -> None:
        super().__init__(name, data, hidden_layers, code, activation, batch_size, noise=code)

    def build(self) -> VariationalAutoencoder:
        """See :class:`ReconstructionTask`."""
        return VariationalAutoencoder(self.widths(), self.activation)
