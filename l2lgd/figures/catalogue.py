"""Which figures there are, and what is evaluated for each panel."""

from l2lgd.figures.architectures import ArchitectureFigure
from l2lgd.figures.art import PaintingsFigure, StripFigure
from l2lgd.figures.base import Evaluation, PaperFigure
from l2lgd.figures.curves import CurveFigure, Panel
from l2lgd.figures.proposals import ProposalsFigure

NATS = "cross-entropy (nats)"
TUNED = ("sgd", "rmsprop", "adam", "nag")
PAPER = ("lstm", *TUNED)
QUADRATICS = {
    "quadratic": "uniform",
    "quadratic_gaussian": "Gaussian",
    "quadratic_rotated": "rotated, condition 100",
    "quadratic_scaled": "the same, curvature differs",
}

QUADRATIC = Evaluation("quadratic", ("task=quadratic",), "quadratic", TUNED)


def _mnist(task: str, num_steps: int = 100, size: str = "mnist", *options: str) -> Evaluation:
    """With the optimizer of the mixture beside the others, for the panels that show it."""
    name = task if num_steps == 100 else f"{task}-{num_steps}"
    return Evaluation(
        name,
        (
            f"task={task}",
            *([] if num_steps == 100 else [f"num_steps={num_steps}"]),
            *options,
        ),
        size,
        ("lstm_mixture", *TUNED),
    )


MNIST, MNIST_200 = _mnist("mnist"), _mnist("mnist", 200)
MNIST_1000 = _mnist("mnist", 1000, "mnist_long", "tune_functions=10")
MNIST_40, TWO_LAYERS = _mnist("mnist_40"), _mnist("mnist_two_layers")
RELU = _mnist("mnist_relu")
CIFAR = {
    name: Evaluation(name, (f"task={name}",), "cifar", others)
    for name, others in (
        ("cifar10", TUNED),
        ("cifar5", ("lstm_sub", *TUNED)),
        ("cifar2", ("lstm_sub", *TUNED)),
    )
}
ART = {
    name: Evaluation(name, (f"task={name}",), "neural_art", TUNED)
    for name in ("neural_art", "neural_art_large")
}
ART_TITLES = {
    "neural_art": "training style and resolution, 64 × 64",
    "neural_art_large": "new style, 128 × 128",
}


def _sharing(task: str, learned: tuple[str, ...], tuned: tuple[str, ...], size: str) -> Evaluation:
    first, *others = learned
    options = (
        f"task={task}",
        f"task.weights_of=[sharing/{task}]",
        f"opt={first}",
    )
    return Evaluation(f"sharing-{task}", options, size, (*others, *tuned))


SHARING = {
    **{
        task: _sharing(
            task, ("lstm", "lstm_gac", "ntm_bfgs", "ntm_lbfgs"), (*TUNED, "bfgs"), "sharing"
        )
        for task in QUADRATICS
    },
    "mnist": _sharing("mnist", ("lstm", "lstm_gac", "ntm_lbfgs"), TUNED, "sharing_mnist"),
}


BANDED = "mean loss against the step"
BUDGETS = "1,500 meta-steps on quadratics, 300 on MNIST"  # of experiment=sharing and mnist_quick


def _figures() -> list[PaperFigure]:
    return [
        CurveFigure(
            "4",
            f"{BANDED} on quadratics, on MNIST, and on MNIST beyond the 100 steps of meta-training "
            "(figure 4 of the paper)",
            [
                Panel("quadratic", "quadratics", QUADRATIC, (1, 100)),
                Panel("mnist", "MNIST", MNIST, (1, 100), NATS, PAPER),
                Panel("mnist_200", "MNIST, 200 steps", MNIST_200, (100, 200), NATS, PAPER),
            ],
        ),
        CurveFigure(
            "5",
            f"{BANDED} of the optimizer of figure 4 on networks that it never saw: 40 units, two "
            "layers, ReLU (figure 5 of the paper)",
            [
                Panel("mnist_40", "MNIST, 40 units", MNIST_40, (1, 100), NATS, PAPER),
                Panel("mnist_two_layers", "MNIST, 2 layers", TWO_LAYERS, (1, 100), NATS, PAPER),
                Panel("mnist_relu", "MNIST, ReLU", RELU, (1, 100), NATS, PAPER),
            ],
            "two layers begin with a standard deviation of 0.05, which the paper does not state",
        ),
        CurveFigure(
            "mixture",
            f"{BANDED} of an LSTM that was meta-trained on networks of many architectures, beside "
            "the one of figures 4 and 5 (an extension of the paper)",
            [
                Panel("mnist", "base network", MNIST, (1, 100), NATS),
                Panel("mnist_40", "40 units", MNIST_40, (1, 100), NATS),
                Panel("mnist_two_layers", "2 layers", TWO_LAYERS, (1, 100), NATS),
                Panel("mnist_relu", "ReLU", RELU, (1, 100), NATS),
                Panel("mnist_200", "base, steps 101–200", MNIST_200, (100, 200), NATS),
                Panel("mnist_1000", "base, 1,000 steps", MNIST_1000, (10, 1000), NATS, window=10),
            ],
        ),
        ArchitectureFigure(
            "6",
            "loss after 100 steps (mean of the last ten) against the hidden units of networks with "
            "one and two layers (figure 6 of the paper)",
            "ADAM and NAG are tuned for every network, the LSTM is the one of figure 4, and the "
            "dashed line is its loss on its own network",
        ),
        CurveFigure(
            "7",
            "mean loss over every ten steps of convnets on CIFAR-10 and on images of 5 and of 2 of "
            "its labels (figure 7 of the paper)",
            [
                Panel(name, title, CIFAR[name], (10, 1000), NATS, window=10)
                for name, title in (
                    ("cifar10", "CIFAR-10"),
                    ("cifar5", "CIFAR-5"),
                    ("cifar2", "CIFAR-2"),
                )
            ],
            "LSTM-sub was meta-trained on the other labels only",
        ),
        CurveFigure(
            "8",
            f"{BANDED} of neural art, zoomed as figure 8 of the paper is",
            [
                Panel(name, title, ART[name], (1, 128), "loss / 10⁶", zoom=2.5, unit=1e6)
                for name, title in ART_TITLES.items()
            ],
        ),
        PaintingsFigure(
            "9",
            "the first test photographs, up to six, and what the LSTM makes of noise in 128 steps "
            "(figure 9 and appendix C of the paper)",
            ART,
            "each style stands above the images that were made with it",
            {"neural_art": "style of the meta-training", "neural_art_large": "new style"},
        ),
        StripFigure(
            "strip",
            "the first test photograph (one function), painted by the LSTM and by tuned ADAM",
            ART,
            "both begin with the same noise",
        ),
        ProposalsFigure(
            "10",
            "updates of three coordinates of the first test photograph (one function) along the "
            "LSTM's path (figure 10 of the paper)",
            ART["neural_art"],
            None,
            "tuned ADAM and SGD see the same gradients but never move the image",
        ),
        *(
            ProposalsFigure(
                str(11 + k),
                f"update proposed for {where} of the first test photograph (one function), were "
                f"its gradient another one (figure {11 + k} of the paper)",
                ART["neural_art"],
                k,
                "the grey line is the true gradient, and each row has its own range",
            )
            for k, where in enumerate(
                ("a red coordinate", "a green coordinate", "a blue coordinate")
            )
        ),
        CurveFigure(
            "sharing",
            f"{BANDED} of optimizers whose coordinates share information, each meta-trained for "
            f"{BUDGETS} (an extension of the paper)",
            [
                *(
                    Panel(name, title, SHARING[name], (0, 100), off_axis=("bfgs",))
                    for name, title in QUADRATICS.items()
                ),
                Panel("mnist", "MNIST", SHARING["mnist"], (0, 100), NATS),
            ],
            "BFGS leaves the axes at the bottom",
        ),
    ]


FIGURES: dict[str, PaperFigure] = {figure.name: figure for figure in _figures()}
