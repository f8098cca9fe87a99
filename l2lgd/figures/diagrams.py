"""The diagrams of the paper, figures 1 to 3, 14 and 15, drawn anew for the docs.

A unit of a sketch is an inch of the picture. All are equally wide, so that at the width of a page
their letters are equally large.
"""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from l2lgd.results.pictures import own_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, WIDE = 7.0, 6.84  # of a sketch, and of what spans it
OPTIMIZER, OPTIMIZEE, MEMORY, PLAIN = "lstm", "rmsprop", "bfgs", ""  # whose colour a box has
ROUND = "round,rounding_size=0.07"
LINE, DROPPED, NOTE = "0.2", "0.4", "0.35"
TEXT, SMALL = 12.0, 10.5  # points
CAPTIONS = {
    "figure_1": "The optimizer sends updates to the optimizee, and hears how well the optimizee "
    "does with them (after figure 1 of the paper).",
    "figure_2": "This is the graph for the meta-gradient (after figure 2 of the paper).",
    "figure_3": "This is one step of the coordinatewise LSTM, `opt=lstm` (after figure 3 of the "
    "paper).",
    "figure_14": "NTM-BFGS reads a product of the matrix with a vector. It writes a sum of outer "
    "products, one per write head (after figure 14 of the paper).",
    "figure_15": "On the left, the controller and the memory in one step. On the right, the "
    "controller of one coordinate $k$ (after figure 15 of the paper).",
}

Point = tuple[float, float]


class Box(NamedTuple):
    """Its centre and its size; arrows start and end at points of its sides."""

    x: float
    y: float
    width: float
    height: float

    def left(self, up: float = 0.0) -> Point:
        return self.x - self.width / 2, self.y + up

    def right(self, up: float = 0.0) -> Point:
        return self.x + self.width / 2, self.y + up

    def top(self, along: float = 0.0) -> Point:
        return self.x + along, self.y + self.height / 2

    def bottom(self, along: float = 0.0) -> Point:
        return self.x + along, self.y - self.height / 2


class Sketch:
    """A figure of boxes and arrows."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(WIDTH, height), facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, WIDTH), ylim=(0, height))
        self.axes.set_axis_off()

    def text(self, at: Point, text: str, size: float = TEXT, **options: Any) -> None:
        options = {"ha": "center", "va": "center", "color": "black", **options}
        self.axes.text(*at, text, fontsize=size, family="DejaVu Sans", **options)

    def note(self, at: Point, text: str, **options: Any) -> None:
        self.text(at, text, SMALL, color=NOTE, **options)

    def box(self, box: Box, text: str, of: str = PLAIN, shape: str = ROUND) -> Box:
        fill, edge = (_tint(of, 0.22), _tint(of, 1.0)) if of else ("white", LINE)
        self._patch(box, shape, facecolor=fill, edgecolor=edge, linewidth=1.3, zorder=2)
        self.text((box.x, box.y), text, zorder=3)
        return box

    def area(self, y: float, height: float, of: str) -> None:
        """What lies behind boxes that belong together, as wide as the sketch."""
        box = Box(WIDTH / 2, y, WIDE, height)
        self._patch(box, ROUND, facecolor=_tint(of, 0.07), edgecolor="none", zorder=0)

    def sum(self, x: float, y: float) -> Box:
        return self.box(Box(x, y, 0.28, 0.28), "$+$", shape="circle")

    def arrow(self, *way: Point, label: str = "", at: Point = (0, 0), dashed: bool = False) -> None:
        """From point to point in straight lines; ``at`` is where the label is."""
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        arrow = FancyArrowPatch(
            path=Path([(round(x, 6), round(y, 6)) for x, y in way]),  # upright stays upright
            arrowstyle="-|>,head_length=0.45,head_width=0.2",
            mutation_scale=13,
            color=DROPPED if dashed else LINE,
            linestyle=(0, (5.6, 2.2)) if dashed else "-",  # the first dash reaches round a tip
            linewidth=1.3,
            joinstyle="miter",
            zorder=1,
        )
        self.axes.add_patch(arrow)
        if label:
            self.text(at, label)

    def divide(self, x: float) -> None:
        self.axes.axvline(x, 0.07, 0.93, color="0.8", linewidth=1.0)

    def _patch(self, box: Box, shape: str, **look: Any) -> None:
        from matplotlib.patches import FancyBboxPatch

        corner, size = (box.left()[0], box.bottom()[1]), (box.width, box.height)
        self.axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=f"{shape},pad=0", **look))


def _tint(of: str, share: float) -> tuple[float, ...]:
    """So much of an optimizer's colour in the curves, the rest white."""
    from matplotlib.colors import to_rgb

    from l2lgd.results.plots import COLORS

    return tuple(1 - share * (1 - part) for part in to_rgb(COLORS[of]))


def _method() -> "Figure":
    sketch = Sketch(1.5)
    optimizer = sketch.box(Box(1.15, 0.75, 1.8, 1.0), "optimizer $m$", OPTIMIZER)
    optimizee = sketch.box(Box(5.85, 0.75, 1.8, 1.0), "optimizee $f$", OPTIMIZEE)
    up, middle = 0.2, WIDTH / 2
    there, back = "parameter updates $g_t$", r"error signal $\nabla_t$"
    sketch.arrow(optimizer.right(up), optimizee.left(up), label=there, at=(middle, 1.13))
    sketch.arrow(optimizee.left(-up), optimizer.right(-up), label=back, at=(middle, 0.37))
    return sketch.figure


def _unrolled() -> "Figure":
    sketch = Sketch(3.75)
    upper, middle, lower, pitch = 3.28, 2.44, 1.12, 1.7
    sketch.area(2.86, 1.54, OPTIMIZEE)
    sketch.area(lower, 0.84, OPTIMIZER)
    sketch.note((0.28, 2.86), "optimizee", rotation=90)
    sketch.note((0.28, lower), "optimizer", rotation=90)
    times = ("t-2", "t-1", "t", "t+1")
    xs = [1.15 + pitch * k for k in range(4)]
    thetas = [
        sketch.box(Box(x, upper, 0.66, 0.44), rf"$\theta_{{{t}}}$", OPTIMIZEE)
        for x, t in zip(xs, times, strict=True)
    ]
    state = (0.5, lower)
    for k, (x, t) in enumerate(zip(xs[:3], times[:3], strict=True)):
        f = sketch.box(Box(x, middle, 0.66, 0.44), f"$f_{{{t}}}$", OPTIMIZEE)
        m = sketch.box(Box(x + pitch / 4, lower, 1.15, 0.5), "$m$", OPTIMIZER)
        plus = sketch.sum(x + pitch / 2, upper)
        sketch.arrow(thetas[k].right(), plus.left())
        sketch.arrow(plus.right(), thetas[k + 1].left())
        sketch.arrow(thetas[k].bottom(), f.top())
        nabla, update = rf"$\nabla_{{{t}}}$", f"$g_{{{t}}}$"
        sketch.arrow(f.bottom(), m.top(-pitch / 4), label=nabla, at=(x + 0.3, 1.8), dashed=True)
        sketch.arrow(m.top(pitch / 4), plus.bottom(), label=update, at=(plus.x + 0.27, 1.8))
        sketch.arrow(state, m.left(), label=f"$h_{{{t}}}$", at=(m.left()[0] - 0.29, lower + 0.19))
        state = m.right()
    sketch.arrow(state, (state[0] + 0.55, lower), label="$h_{t+1}$", at=(6.4, lower))
    for x, dashed, meaning in (
        (0.7, False, "gradients flow back"),
        (3.3, True, r"dropped: $\nabla_t$ is taken as a constant"),
    ):
        sketch.arrow((x, 0.28), (x + 0.5, 0.28), dashed=dashed)
        sketch.note((x + 0.6, 0.28), meaning, ha="left")
    return sketch.figure


def _coordinatewise() -> "Figure":
    sketch = Sketch(3.75)
    top, middle, low = 3.4, 1.77, 0.35
    xs = (1.05, 3.2, 5.82)
    between = (xs[0] + xs[1]) / 2, (xs[1] + xs[2]) / 2
    sketch.area(1.92, 1.1, OPTIMIZER)
    f = sketch.box(Box(WIDTH / 2, low, WIDE, 0.46), r"optimizee $f(\theta_t)$", OPTIMIZEE)
    for x, k in zip(xs, ("1", "2", "n"), strict=True):
        lstm = sketch.box(Box(x, middle, 0.72, 0.5), "LSTM", OPTIMIZER)
        plus = sketch.sum(x, top)
        gradient, update = rf"$\nabla_t^{{{k}}}$", f"$g_t^{{{k}}}$"
        sketch.arrow(f.top(x - f.x), lstm.bottom(), label=gradient, at=(x + 0.24, 0.97))
        sketch.arrow(lstm.top(), plus.bottom(), label=update, at=(x + 0.24, 2.86))
        for box, letter in ((lstm, "h"), (plus, r"\theta")):
            sketch.text((x - 0.77, box.y), f"${letter}_t^{{{k}}}$")
            sketch.arrow((x - 0.63, box.y), box.left())
            sketch.arrow(box.right(), (x + 0.63, box.y))
            sketch.text((x + 0.86, box.y), f"${letter}_{{t+1}}^{{{k}}}$")
    for y in (top, middle):
        sketch.text((between[1] + 0.04, y), r"$\cdots$")
    sketch.note((between[0], 2.28), r"shared weights $\phi$")
    sketch.note((between[1], 2.28), "separate states $h$")
    return sketch.figure


def _memory() -> "Figure":
    sketch = Sketch(1.75)
    y, size, thin = 1.02, 0.9, 0.34

    def row(x: float, parts: Sequence[tuple[str, float, float, str]]) -> float:
        """Matrices, vectors and signs (no height) side by side from x; where they end."""
        for text, width, height, of in parts:
            at = x + width / 2
            if height:
                sketch.box(Box(at, y, width, height), text, of, shape="square")
            elif text:
                sketch.text((at, y), text)
            x += width
        return x

    gap, equals = ("", 0.07, 0.0, PLAIN), ("$=$", 0.34, 0.0, PLAIN)
    memory = ("$M_t$", size, size, MEMORY)
    read = [("$i_t$", thin, size, OPTIMIZER), equals, memory, gap]
    write = [("$M_{t+1}$", size, size, MEMORY), equals, memory, ("$+$", 0.3, 0.0, PLAIN)]
    end = row(0.15, [*read, ("$r_t$", thin, size, OPTIMIZER)])
    start = end + 0.48
    summed = row(start, write)
    sketch.text((summed + 0.2, y), r"$\sum$", 17)
    sketch.note((summed + 0.2, y - 0.32), "heads")
    left, right = ("$a_t$", thin, size, OPTIMIZER), (r"$b_t^\top$", size, thin, OPTIMIZER)
    far = row(summed + 0.48, [left, gap, right])
    sketch.divide((end + start) / 2)
    sketch.note(((0.15 + end) / 2, 0.25), "read")
    sketch.note(((start + far) / 2, 0.25), "write")
    return sketch.figure


def _controller() -> "Figure":
    sketch = Sketch(3.1)
    high, middle, low = 2.1, 1.15, 0.42
    read = sketch.box(Box(1.15, middle, 0.84, 0.46), "read", MEMORY)
    write = sketch.box(Box(2.95, low, 0.84, 0.46), "write", MEMORY)
    controller = sketch.box(Box(2.55, high, 1.5, 0.96), "controller", OPTIMIZER)
    _wires(sketch, controller, 0.25, (r"$\nabla_t$", "$h_t$"))
    _wires(sketch, controller, 4.05, ("$g_t$", "$h_{t+1}$", "$r_{t+1}$"))
    _wires(sketch, read, 0.25, ("$r_t$",))
    _wires(sketch, write, 0.25, ("$M_t$",))
    _wires(sketch, write, 4.05, ("$M_{t+1}$",))
    sketch.arrow((read.x, low), read.bottom())  # M_t is read before it is written
    sketch.axes.plot(read.x, low, marker="o", markersize=4, color=LINE)
    way = (read.right(), (2.1, middle), controller.bottom(-0.45))
    sketch.arrow(*way, label="$i_t$", at=(1.85, 1.32))
    for along, text in ((-0.18, "$a_t$"), (0.18, "$b_t$")):
        ends = controller.bottom(write.x - controller.x + along), write.top(along)
        sketch.arrow(*ends, label=text, at=(write.x + 2.1 * along, middle))
    sketch.divide(4.5)
    sketch.note((2.15, 2.88), "one step")
    sketch.note((5.75, 2.88), "one coordinate")
    alone = sketch.box(Box(5.75, 1.385, 0.9, 2.39), "LSTM", OPTIMIZER)
    _wires(sketch, alone, 4.85, (r"$\nabla_t^k$", "$h_t^k$", "$i_t^k$"))
    _wires(sketch, alone, 6.7, ("$g_t^k$", "$h_{t+1}^k$", "$r_{t+1}^k$", "$a_t^k$", "$b_t^k$"))
    return sketch.figure


def _wires(sketch: Sketch, box: Box, x: float, labels: Sequence[str]) -> None:
    """Arrows from labels at x into a box's left side, or out of its right side to them."""
    for k, label in enumerate(labels):
        up = box.height * (0.5 - (k + 0.5) / len(labels))
        sketch.text((x, box.y + up), label)
        into, out = ((x + 0.22, box.y + up), box.left(up)), (box.right(up), (x - 0.28, box.y + up))
        sketch.arrow(*(into if x < box.x else out))


DIAGRAMS: dict[str, Callable[[], "Figure"]] = {
    "figure_1": _method,
    "figure_2": _unrolled,
    "figure_3": _coordinatewise,
    "figure_14": _memory,
    "figure_15": _controller,
}


def draw(name: str, dpi: int = 150) -> bytes:
    """A diagram as a PNG file; name is a key of ``DIAGRAMS``."""
    buffer = io.BytesIO()
    with own_settings():
        DIAGRAMS[name]().savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
