"""The diagrams of the paper, figures 1 to 3, 14 and 15, drawn anew for the docs.

A unit of a sketch is an inch of the picture.
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

OPTIMIZER, OPTIMIZEE, MEMORY, PLAIN = "#fee6ce", "#deebf7", "#e5f5e0", "white"
EDGE, SOFT = "0.25", "0.55"
TEXT = 11  # points
CAPTIONS = {
    "figure_1": "The optimizer sends updates of the parameters, and is told how well the optimizee "
    "does with them (after figure 1 of the paper).",
    "figure_2": "The graph that the meta-gradient is computed on. Gradients flow back along solid "
    "edges; dashed ones, by which the optimizer sees ∇, are dropped (after figure 2 of the paper).",
    "figure_3": "One step of a coordinatewise optimizer: all LSTMs have the same weights, each has "
    "its own state (after figure 3 of the paper).",
    "figure_14": "NTM-BFGS reads a matrix–vector product and writes an outer product (after figure "
    "14 of the paper).",
    "figure_15": "Left, how controller and memory work together in one step; right, the controller "
    "of one coordinate k (after figure 15 of the paper).",
}


class Node(NamedTuple):
    """A box: its centre and its size."""

    x: float
    y: float
    width: float = 0.0
    height: float = 0.0

    def edge(self, x: float, y: float) -> tuple[float, float]:
        """Where the line from the centre to a point leaves the box."""
        dx, dy = x - self.x, y - self.y
        if not (self.width or self.height) or (dx, dy) == (0, 0):
            return self.x, self.y
        share = min(
            self.width / 2 / abs(dx) if dx else 1e9, self.height / 2 / abs(dy) if dy else 1e9
        )
        return self.x + share * dx, self.y + share * dy


class Sketch:
    """Boxes and arrows."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float = TEXT, **options: Any) -> None:
        self.axes.text(x, y, text, ha="center", va="center", fontsize=size, **options)

    def box(
        self,
        x: float,
        y: float,
        text: str,
        width: float = 0.62,
        height: float = 0.46,
        color: str = PLAIN,
        rounding: float = 0.08,
    ) -> Node:
        from matplotlib.patches import FancyBboxPatch

        corner = (x - width / 2, y - height / 2)
        style = f"round,pad=0,rounding_size={rounding}"
        self.axes.add_patch(
            FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor=EDGE)
        )
        self.text(x, y, text)
        return Node(x, y, width, height)

    def sum(self, x: float, y: float) -> Node:
        """A circle with a plus."""
        return self.box(x, y, "+", 0.3, 0.3, rounding=0.15)

    def arrow(
        self,
        start: Node,
        end: Node,
        label: str = "",
        at: tuple[float, float] = (0.0, 0.14),
        dashed: bool = False,
        bend: float = 0.0,
    ) -> None:
        """From box to box; ``at`` is where the label is, seen from the middle."""
        from matplotlib.patches import FancyArrowPatch

        ends = (start.edge(end.x, end.y), end.edge(start.x, start.y))
        if bend:  # leaves and enters at the sides
            side = -1 if bend > 0 else 1
            ends = (
                (start.x + side * start.width / 2, start.y),
                (end.x + side * end.width / 2, end.y),
            )
        self.axes.add_patch(
            FancyArrowPatch(
                *ends,
                arrowstyle="-|>",
                mutation_scale=12,
                shrinkA=0,
                shrinkB=0,
                color=SOFT if dashed else EDGE,
                linestyle=(0, (4, 2.5)) if dashed else "-",
                linewidth=1.2,
                connectionstyle=f"arc3,rad={bend}",
            )
        )
        middle = [(a + b) / 2 for a, b in zip(*ends, strict=True)]
        if label:
            self.text(middle[0] + at[0], middle[1] + at[1], label)


def _method() -> Sketch:
    sketch = Sketch(5.6, 1.5)
    optimizer = sketch.box(0.95, 0.75, "optimizer", 1.5, 0.9, OPTIMIZER)
    optimizee = sketch.box(4.65, 0.75, "optimizee", 1.5, 0.9, OPTIMIZEE)
    for up, (start, end), label in (
        (0.22, (optimizer, optimizee), "parameter updates"),
        (-0.22, (optimizee, optimizer), "error signal"),
    ):
        ends = [Node(n.x, n.y + up, n.width, 0.0) for n in (start, end)]
        sketch.arrow(*ends, label, at=(0, 0.14 if up > 0 else -0.15))
    return sketch


def _unrolled() -> Sketch:
    sketch = Sketch(9.3, 3.3)
    when = ("t-2", "t-1", "t")
    xs = [1.75 + 2.3 * k for k in range(4)]
    top, middle, bottom = 2.75, 1.75, 0.5
    sketch.text(0.62, top, "optimizee", 10, color="0.35")
    sketch.text(0.62, bottom - 0.22, "optimizer", 10, color="0.35")
    thetas = [
        sketch.box(x, middle, rf"$\theta_{{{t}}}$", 0.66, 0.44, OPTIMIZEE)
        for x, t in zip(xs, (*when, "t+1"), strict=True)
    ]
    steps = [sketch.box(x, bottom, "$m$", 0.66, 0.44, OPTIMIZER) for x in xs[:3]]
    sketch.arrow(Node(0.55, bottom), steps[0], "$h_{t-2}$")
    for k, t in enumerate(when):
        f = sketch.box(xs[k], top, f"$f_{{{t}}}$", 0.66, 0.44, OPTIMIZEE)
        plus = sketch.sum(xs[k] + 1.15, middle)
        sketch.arrow(thetas[k], f)
        sketch.arrow(thetas[k], plus)
        sketch.arrow(plus, thetas[k + 1])
        sketch.arrow(steps[k], plus, f"$g_{{{t}}}$", at=(0.2, -0.08))
        sketch.arrow(f, steps[k], rf"$\nabla_{{{t}}}$", at=(-0.55, -0.4), dashed=True, bend=0.28)
        following = steps[k + 1] if k < 2 else Node(xs[3], bottom)
        state = ("t-1", "t", "t+1")[k]
        sketch.arrow(steps[k], following, f"$h_{{{state}}}$", at=(0.1, -0.16))
    return sketch


def _coordinatewise() -> Sketch:
    from matplotlib.patches import Rectangle

    sketch = Sketch(6.6, 3.4)
    sketch.axes.add_patch(
        Rectangle((2.2, 0.2), 2.2, 2.75, fill=False, edgecolor=SOFT, linestyle="--")
    )
    sketch.text(3.3, 3.13, "the same weights", 10, color="0.35")
    for y, k in ((2.5, "1"), (1.65, "2"), (0.6, "n")):
        gradient = sketch.box(0.8, y, rf"$\nabla_t^{{{k}}}$", 0.7, 0.46, OPTIMIZEE)
        network = sketch.box(3.3, y, "LSTM", 0.9, 0.5, OPTIMIZER)
        update = sketch.box(5.8, y, rf"$\theta_t^{{{k}}} + g_t^{{{k}}}$", 1.2, 0.46, OPTIMIZEE)
        sketch.arrow(gradient, network)
        sketch.arrow(network, update)
        sketch.text(2.55, y + 0.22, rf"$h_t^{{{k}}}$", 10)
        sketch.text(4.12, y + 0.22, rf"$h_{{t+1}}^{{{k}}}$", 10)
    for x in (0.8, 3.3, 5.8):
        sketch.text(x, 1.13, "⋮", 14)
    return sketch


def _memory() -> Sketch:
    sketch = Sketch(8.0, 2.0)
    middle, side = 1.1, 1.0
    sketch.text(1.8, 0.2, "read", 10, color="0.35")
    sketch.text(5.9, 0.2, "write", 10, color="0.35")
    sketch.box(0.55, middle, "$i_t$", 0.4, side, OPTIMIZER, 0.03)
    sketch.text(0.95, middle, "=")
    sketch.box(1.75, middle, "$M_t$", side, side, MEMORY, 0.03)
    sketch.box(2.6, middle, "$r_t$", 0.4, side, OPTIMIZER, 0.03)
    sketch.box(4.2, middle, "$M_{t+1}$", side, side, MEMORY, 0.03)
    sketch.text(4.9, middle, "=")
    sketch.box(5.6, middle, "$M_t$", side, side, MEMORY, 0.03)
    sketch.text(6.3, middle, "+")
    sketch.box(6.65, middle, "$a_t$", 0.4, side, OPTIMIZER, 0.03)
    sketch.box(7.4, middle + 0.3, r"$b_t^\top$", side, 0.4, OPTIMIZER, 0.03)
    return sketch


def _controller() -> Sketch:
    sketch = Sketch(9.0, 2.7)
    low, middle, high = 0.3, 1.35, 2.4
    read = sketch.box(0.95, middle, "read", 1.0, 0.6, MEMORY)
    controller = sketch.box(3.2, middle, "controller", 1.5, 0.6, OPTIMIZER)
    write = sketch.box(5.4, middle, "write", 1.0, 0.6, MEMORY)
    sketch.arrow(read, controller, "$i_t$")
    sketch.arrow(controller, write, "$a_t, b_t$", at=(0, 0.17))
    _into(sketch, read, low, ("$M_t$", "$r_t$"))
    _into(sketch, controller, low, (r"$\nabla_t$", "$h_t$"))
    _into(sketch, write, low, ("$M_t$",))
    _out_of(sketch, controller, high, ("$g_t$", "$h_{t+1}$", "$r_{t+1}$"))
    _out_of(sketch, write, high, ("$M_{t+1}$",))
    alone = sketch.box(7.7, middle, "LSTM", 2.3, 0.6, OPTIMIZER)
    _into(sketch, alone, low, (r"$\nabla_t^k$", "$h_t^k$", "$i_t^k$"))
    out = ("$g_t^k$", "$h_{t+1}^k$", "$r_{t+1}^k$", "$a_t^k$", "$b_t^k$")
    _out_of(sketch, alone, high, out)
    return sketch


def _into(sketch: Sketch, box: Node, y: float, labels: tuple[str, ...]) -> None:
    """Arrows into a box from below."""
    for x, label in zip(_spread(box, len(labels)), labels, strict=True):
        sketch.text(x, y, label)
        sketch.arrow(Node(x, y + 0.17), Node(x, box.y - box.height / 2))


def _out_of(sketch: Sketch, box: Node, y: float, labels: tuple[str, ...]) -> None:
    """Arrows out of a box, upwards."""
    for x, label in zip(_spread(box, len(labels)), labels, strict=True):
        sketch.text(x, y, label)
        sketch.arrow(Node(x, box.y + box.height / 2), Node(x, y - 0.17))


def _spread(box: Node, count: int) -> list[float]:
    return [box.x + box.width * ((k + 0.5) / count - 0.5) for k in range(count)]


DIAGRAMS: dict[str, Callable[[], Sketch]] = {
    "figure_1": _method,
    "figure_2": _unrolled,
    "figure_3": _coordinatewise,
    "figure_14": _memory,
    "figure_15": _controller,
}


def draw(name: str, dpi: int = 150) -> bytes:
    """A diagram as a PNG file; name is a key of ``DIAGRAMS``."""
    buffer = io.BytesIO()
    DIAGRAMS[name]().figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
