"""What must hold for a task, set up in float64 on the CPU."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Optimizee, Split, Task
from l2lgd.tasks.description import checked
from l2lgd.tasks.joined import join
from l2lgd.testing.base import B, Failed, basic, distance, normal, same_random_state, seeded

ROUNDING = 1e-6
SLOPES = 1e-3  # of differences, which have kinks
STEP = 1e-7  # of differences


def functions_of(task: Task, split: Split = "train", seed: int = 0) -> Optimizee:
    """Some of its functions."""
    return task.sample(split, B, seeded(seed))


def displaced(functions: Optimizee) -> Tensor:
    """Parameters off the start, where gradients are not special."""
    initial = functions.initial_parameters
    return initial + 0.1 * normal(initial, "displaced")


def data_are_described(task: Task) -> None:
    """See ``Task.data_description``."""
    try:
        checked(task.data_description())
    except ConfigError as error:
        raise Failed(str(error), task.data_description) from error


@basic
def functions_are_sampled(task: Task) -> None:
    """An ``Optimizee`` of B functions with parameters (B, n), and shapes that add up to n."""
    if not isinstance(getattr(task, "name", None), str):
        raise Failed("the task has no name; write name = '…' into its class", task)
    for split in SPLITS:
        functions = task.sample(split, B, seeded())
        where = task.sample
        if not isinstance(functions, Optimizee):
            kind = type(functions).__name__
            raise Failed(f"sample returns {kind}, and must return an Optimizee", where)
        lacking = [
            name
            for name in ("initial_parameters", "shapes", "stochastic")
            if not hasattr(functions, name)
        ]
        if lacking:
            raise Failed(f"it has no attribute {lacking[0]}; set it in __init__", functions)
        theta, shapes = functions.initial_parameters, functions.shapes
        if not isinstance(theta, Tensor) or theta.dim() != 2 or len(theta) != B:
            shape = tuple(theta.shape) if isinstance(theta, Tensor) else type(theta).__name__
            raise Failed(
                f"initial_parameters of num_functions={B} are {shape}, and must be ({B}, n)", where
            )
        if theta.dtype != task.dtype:
            raise Failed(
                f"initial_parameters are {theta.dtype}, and must be self.dtype, here "
                f"{task.dtype}; move them by .to(self.device, self.dtype)",
                where,
            )
        if not isinstance(shapes, Mapping):
            raise Failed("shapes must be a mapping of names to shapes", functions)
        total = sum(torch.Size(shape).numel() for shape in shapes.values())
        if total != theta.shape[1]:
            raise Failed(
                f"shapes add up to {total} coordinates, and there are n={theta.shape[1]}", functions
            )


@basic
def there_is_one_loss_for_each_function(task: Task) -> None:
    """Losses (B,), finite at the start, in every split."""
    for split in SPLITS:
        _one_loss_for_each(functions_of(task, split), split)


def _one_loss_for_each(functions: Optimizee, split: Split) -> None:
    loss = functions.loss(functions.initial_parameters, 0)
    if not isinstance(loss, Tensor):
        raise Failed(f"loss returns {type(loss).__name__}, and must return (B,)", functions.loss)
    if loss.shape == ():
        raise Failed(
            "loss returns one number, a sum or mean over all B functions; it must be (B,): reduce "
            "each function's dimensions alone, as .mean(1) does",
            functions.loss,
        )
    if loss.shape != (B,):
        way_out = "; add .squeeze(1)" if loss.shape == (B, 1) else ""
        raise Failed(
            f"loss of B={B} functions is {tuple(loss.shape)}, and must be ({B},){way_out}",
            functions.loss,
        )
    if not loss.isfinite().all():
        raise Failed(f"the loss is not finite at the initial parameters of {split}", functions.loss)


@basic
def losses_have_gradients(task: Task) -> None:
    """By autograd, finite, and none of them zero throughout."""
    functions = functions_of(task)
    theta = displaced(functions).requires_grad_()
    loss = functions.loss(theta, 0)
    if not loss.requires_grad:
        raise Failed(
            "the loss does not depend on the parameters by autograd: is there a detach(), item(), "
            "no_grad() or a rounding in it?",
            functions.loss,
        )
    (gradient,) = torch.autograd.grad(loss.sum(), theta)
    if not gradient.isfinite().all():
        raise Failed("the gradient is not finite near the start", functions.loss)
    if (gradient == 0).all(1).any():
        raise Failed("the gradient of a function is zero near the start", functions.loss)
    for split in SPLITS:  # at the start itself, where many a norm or root has no gradient
        functions = functions_of(task, split)
        _, gradient = functions.loss_and_gradient(functions.initial_parameters, 0)
        if not gradient.isfinite().all():
            raise Failed(
                f"the gradient is not finite at the initial parameters of {split}", functions.loss
            )


def gradients_are_those_of_the_losses(task: Task) -> None:
    """Against differences."""
    functions = functions_of(task)
    theta = displaced(functions)
    _, gradient = functions.loss_and_gradient(theta, 1)
    for seed in range(2):
        direction = normal(theta, "direction", seed)
        direction /= direction.norm(dim=1, keepdim=True)
        ahead, behind = (functions.loss(theta + e * direction, 1) for e in (STEP, -STEP))
        slope = (ahead - behind) / (2 * STEP)
        found = (gradient * direction).sum(1)
        noise = 1e-15 * ahead.abs().max().item() / STEP
        if (found - slope).abs().max().item() > SLOPES * slope.abs().max().item() + 100 * noise:
            raise Failed(
                f"the gradient along a direction is {found[0].item():.6g}, and the loss changes by "
                f"{slope[0].item():.6g}; is something in the loss detached?",
                functions.loss_and_gradient,
            )


def functions_do_not_depend_on_each_other(task: Task) -> None:
    """Moving one changes no other's loss or gradient."""
    functions = functions_of(task)
    theta = displaced(functions)
    moved = theta.clone()
    moved[0] += 1.0
    before, after = (functions.loss_and_gradient(at, 1) for at in (theta, moved))
    for name, old, new in zip(("loss", "gradient"), before, after, strict=True):
        if distance(old[1:], new[1:]) > ROUNDING:
            raise Failed(
                f"the {name} of a function changes when another one's parameters do; is there a "
                "mean over dimension 0?",
                functions.loss,
            )


def stacked_functions_are_the_same_as_apart(task: Task) -> None:
    """``select`` gives the same losses."""
    functions = functions_of(task)
    theta = displaced(functions)
    loss = functions.loss(theta, 2)
    for row in range(B):
        own = slice(row, row + 1)
        chosen = functions.select(own)
        if distance(chosen.initial_parameters, functions.initial_parameters[own]) > 0:
            raise Failed("select(rows) has other initial_parameters", functions.select)
        alone = chosen.loss(theta[own], 2)
        if alone.shape != (1,) or distance(alone, loss[own]) > ROUNDING:
            raise Failed(
                f"function {row} has loss {loss[row].item():.6g} in the stack, and "
                f"{alone.flatten()[0].item():.6g} alone, by select",
                functions.select,
            )


def a_function_is_the_same_every_time(task: Task) -> None:
    """Its loss depends on parameters and step alone."""
    functions = functions_of(task)
    theta = displaced(functions)
    first, other = functions.loss(theta, 2), functions.loss(theta, 5)
    if not functions.loss(theta, 2).equal(first):
        raise Failed(
            "the same function at the same step has another loss the second time; derive what is "
            "random from the step, as generator(seed, step) does",
            functions.loss,
        )
    if functions.stochastic != (not other.equal(first)):
        said = "differs from step to step" if not functions.stochastic else "is always the same"
        raise Failed(f"stochastic={functions.stochastic}, and the loss {said}", functions)


def only_the_generator_decides(task: Task) -> None:
    """The same generator, the same functions; PyTorch's own generator has no part in it."""

    def drawn(seed: int) -> tuple[Optimizee, Tensor]:
        functions = functions_of(task, seed=seed)
        theta = functions.initial_parameters
        return functions, torch.cat([theta, functions.loss(theta, 1).unsqueeze(1)], 1)

    (functions, first), untouched = same_random_state(lambda: drawn(0))
    if not untouched:
        raise Failed(
            "sample or loss draws from PyTorch's global generator; hand generator=generator to "
            "every function that draws",
            task.sample,
        )
    (_, same), _ = same_random_state(lambda: drawn(0))
    if not same.equal(first):
        raise Failed(
            "the same generator gives other functions the second time; is random or numpy used?",
            task.sample,
        )
    if same_random_state(lambda: drawn(1))[0][1].equal(first):
        raise Failed("another generator gives the same functions", task.sample)
    theta = functions.initial_parameters
    if B > 1 and theta[0].equal(theta[1]):
        alike = functions.loss(theta[:1].expand(B, -1), 1)
        if alike[0].equal(alike[1]):
            raise Failed("the functions of a stack are all the same", task.sample)


def splits_are_apart(task: Task) -> None:
    """The same generator gives other functions in another split, where there are data."""
    if task.data_description() is None:
        return
    losses: dict[str, Tensor] = {}
    for split in SPLITS:
        functions = functions_of(task, split)
        theta = functions.initial_parameters
        losses[split] = functions.loss(torch.zeros_like(theta) + 0.1 * normal(theta, "at"), 0)
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if losses[one].shape == losses[other].shape and losses[one].equal(losses[other]):
            raise Failed(
                f"functions of {one} and {other} are the same; sample must use the data of split",
                task.sample,
            )


def held_out_functions_are_the_same_but_for_their_examples(task: Task) -> None:
    """``held_out``, where there is one: each function's own, stacked and apart."""
    functions = functions_of(task)
    theta = displaced(functions)
    losses: dict[str, Tensor] = {}
    for split in SPLITS:
        others = task.held_out(functions, split, seeded())
        if others is None:
            return
        if not isinstance(others, Optimizee):
            kind = type(others).__name__
            raise Failed(f"held_out returns {kind}, not an Optimizee or None", task.held_out)
        if not others.initial_parameters.equal(functions.initial_parameters):
            raise Failed("held_out has other initial_parameters", task.held_out)
        if dict(others.shapes) != dict(functions.shapes):
            raise Failed("held_out has other shapes", task.held_out)
        losses[split] = others.loss(theta, 0)
        again = task.held_out(functions, split, seeded())
        if again is None or not again.loss(theta, 0).equal(losses[split]):
            raise Failed(
                "held_out gives other functions the second time; draw from generator", task.held_out
            )
        for row in range(B):
            own = slice(row, row + 1)
            if distance(others.select(own).loss(theta[own], 0), losses[split][own]) > ROUNDING:
                raise Failed(f"function {row} of held_out is another one alone", others.select)
    if losses["train"].equal(losses["validation"]) or losses["train"].equal(losses["test"]):
        raise Failed("held_out must use the data of split", task.held_out)


def minibatches_may_be_drawn_ahead(task: Task) -> None:
    """``prefetch``, ``inputs`` and ``on`` change no loss; ``joined`` puts steps right."""
    functions = functions_of(task)
    theta = displaced(functions)
    expected = [functions.loss(theta, step) for step in range(4)]
    functions.prefetch(range(1, 3))
    for step, loss in enumerate(expected):
        if distance(functions.loss(theta, step), loss) > ROUNDING:
            raise Failed(f"after prefetch the loss of step {step} is another", functions.prefetch)
        inputs = functions.inputs(step)
        if inputs is not None and distance(functions.on(inputs).loss(theta, 0), loss) > ROUNDING:
            raise Failed(f"on(inputs({step})) has another loss than step {step}", functions.on)
    together = join([functions.select(slice(0, 1)), functions.select(slice(1, 2))], [0, 2])
    found = together.loss(theta[:2], 3)
    if distance(found, torch.stack([expected[3][0], expected[1][1]])) > ROUNDING:
        raise Failed("joined functions are not at the steps they should be", functions.joined)


def second_derivatives_exist(task: Task) -> None:
    """The product with the Hessian, against differences of gradients."""
    functions = functions_of(task)
    theta = displaced(functions)
    vector = normal(theta, "vector")
    vector /= vector.norm(dim=1, keepdim=True)
    product = functions.hessian_product(theta, 1, vector)
    if not product.isfinite().all():
        raise Failed("the product with the Hessian is not finite", functions.loss)


TASK_CHECKS: tuple[Callable[[Task], None], ...] = (
    data_are_described,
    functions_are_sampled,
    there_is_one_loss_for_each_function,
    losses_have_gradients,
    gradients_are_those_of_the_losses,
    functions_do_not_depend_on_each_other,
    stacked_functions_are_the_same_as_apart,
    a_function_is_the_same_every_time,
    only_the_generator_decides,
    splits_are_apart,
    held_out_functions_are_the_same_but_for_their_examples,
    minibatches_may_be_drawn_ahead,
    second_derivatives_exist,
)
