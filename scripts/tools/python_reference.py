"""Write docs/reference/python.md: the public names of l2lgd, from their docstrings.

Run as ``python scripts/tools/python_reference.py [--check]``; with ``--check`` nothing is written,
and the exit status is 1 if the page is not up to date.
"""

import inspect
import re
import sys
import textwrap
from abc import ABC
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic

import docstrings
import generated

import l2lgd

PAGE = generated.DOCS / "reference" / "python.md"
FIRST = (  # the others follow in alphabetical order
    "LearnedOptimizer",
    "LearnedRule",
    "Optimizer",
    "Task",
    "Optimizee",
    "UserError",
)
PACKAGES = ("nn", "optim")  # of PyTorch, in the names of types
WIDTH = 80  # of a signature


def main() -> int:
    """Write the page, or check it; returns the exit status."""
    return generated.run("python_reference.py", (__doc__ or "").splitlines()[0], pages())


def pages() -> dict[Path, str]:
    """The page, with what it should say."""
    objects = public()
    errors = {name: o for name, o in objects.items() if is_error(o)}
    rest = {name: o for name, o in objects.items() if name not in errors}
    lines = names_table(rest)
    names = {thing: name for name, thing in rest.items()}
    for name, thing in rest.items():
        if inspect.isclass(thing):
            lines += class_section(thing, names)
        elif inspect.isfunction(thing):
            lines += function_section(thing)
        else:
            lines += [f"## `{name}`", "", *fenced(f"{name} = {annotation(thing)}")]
    return {PAGE: generated.between_marks(PAGE, lines + error_section(errors))}


def public() -> dict[str, Any]:
    """The names and what they stand for."""
    names = dict.fromkeys([*FIRST, *l2lgd.__all__])
    return {name: getattr(l2lgd, name) for name in names}


def is_error(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, BaseException)


def names_table(objects: dict[str, Any]) -> list[str]:
    rows = [
        f"| [`{name}`](#{name.lower()}) | {summary(thing)} |" for name, thing in objects.items()
    ]
    errors = "| [errors](#errors) | What goes wrong in a way that a user can put right. |"
    return ["| name | what it is |", "|---|---|", *rows, errors, ""]


def summary(thing: Any) -> str:
    documented = inspect.isclass(thing) or inspect.isfunction(thing)
    return docstrings.summary(thing) if documented else "A type, for annotations."


def class_section(kind: type, names: Mapping[type, str]) -> list[str]:
    """A class: its signature, its docstring, its attributes, its methods."""
    name = names[kind]
    inherited = [base for base in kind.__mro__[1:] if base in names]
    lines = [f"## `{name}`", ""]
    bases = [b for b in kind.__bases__ if b not in (object, ABC, Generic)]
    if bases:
        lines += [f"Derived from {' and '.join(base_name(base, names) for base in bases)}.", ""]
    if not inspect.isabstract(kind):
        lines += fenced(signature(name, kind))
    lines += docstrings.as_markdown(inspect.getdoc(kind) or "")
    lines += attribute_table(kind)
    for method_name, method in methods_of(kind):
        lines += method_section(name, method_name, method)
    if inherited:
        links = " and ".join(base_name(base, names) for base in inherited)
        lines += [f"It also has what {links} has.", ""]
    return lines


def base_name(base: type, names: Mapping[type, str]) -> str:
    """A link where it is on the page."""
    if base in names:
        return f"[`{names[base]}`](#{names[base].lower()})"
    return f"`{annotation(base)}`"


def methods_of(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class itself documents, those to be written first."""
    own = [
        (name, member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and is_documented(member)
    ]
    yield from (pair for pair in own if getattr(pair[1], "__isabstractmethod__", False))
    yield from (pair for pair in own if not getattr(pair[1], "__isabstractmethod__", False))


def is_documented(member: Any) -> bool:
    return isinstance(member, property | classmethod | staticmethod) or (
        inspect.isfunction(member) and bool(member.__doc__)
    )


def method_section(owner: str, name: str, member: Any) -> list[str]:
    """A method or a property."""
    lines = [f"### `{owner}.{name}`", ""]
    if isinstance(member, property):
        function: Any = member.fget
        found = annotation(inspect.signature(function).return_annotation)
        lines += [f"A property of type `{found}`.", ""]
    else:
        function = getattr(member, "__func__", member)
        lines += fenced(signature(name, function))
    lines += docstrings.as_markdown(inspect.getdoc(function) or "")
    if getattr(member, "__isabstractmethod__", False):
        lines += ["Every subclass defines it.", ""]
    return lines


def function_section(function: Any) -> list[str]:
    name = function.__name__
    lines = [f"## `{name}`", "", *fenced(signature(name, function))]
    return lines + docstrings.as_markdown(inspect.getdoc(function) or "")


def error_section(errors: dict[str, Any]) -> list[str]:
    """All errors, as a table."""
    rows = []
    for name, kind in errors.items():
        bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        rows.append(f"| `{name}` | {bases} | {docstrings.summary(kind)} |")
    said = "The message of each is one line with the way out."
    lines = ["## Errors", "", f"{said} The command line prints it and ends with status 2.", ""]
    return [*lines, "| error | derived from | when |", "|---|---|---|", *rows]


def attribute_table(kind: type) -> list[str]:
    """Annotated or commented attributes in the body of a class, before its first method."""
    body = textwrap.dedent(inspect.getsource(kind)).split("\n    def ")[0].split("\n    @")[0]
    after_docstring = body.rpartition('"""')[2]
    rows = []
    for line in after_docstring.splitlines():
        found = re.match(r"    ([a-z]\w*)(?:: ([^=#]+?))?(?: = ([^#]+?))?(?: +# (.*))?$", line)
        if found:
            name, kind_name, default, comment = (part or "" for part in found.groups())
            default = f"`{default}`" if default else ""
            typed = f"`{kind_name}`".replace("|", "\\|") if kind_name else ""
            rows.append(f"| `{name}` | {typed} | {default} | {docstrings.marked(comment)} |")
    head = ["| attribute | type | default | meaning |", "|---|---|---|---|"]
    return [*head, *rows, ""] if rows else []


def signature(name: str, function: Any) -> str:
    """As one would write it, an argument a line where it is long."""
    found = inspect.signature(function)
    parameters = [p for p in found.parameters.values() if p.name != "self"]
    parts, positional_only_ended = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not positional_only_ended:
            parts.append("*")
            positional_only_ended = True
        parts.append(parameter_text(parameter))
    back = found.return_annotation
    arrow = "" if back is found.empty or inspect.isclass(function) else f" -> {annotation(back)}"
    one_line = f"{name}({', '.join(parts)}){arrow}"
    if len(one_line) <= WIDTH:
        return one_line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){arrow}"])


def parameter_text(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default).replace("'", '"')
        text += f" = {default}" if ":" in text else f"={default}"
    return text


def annotation(kind: Any) -> str:
    """A type, without the modules that its parts come from unless these are PyTorch's."""
    text = re.sub(r"[A-Za-z_][\w.]*", lambda match: short(match[0]), inspect.formatannotation(kind))
    return text.replace("NoneType", "None").replace("~", "").replace("'", '"')


def short(name: str) -> str:
    """A dotted name as one writes it: ``torch.nn.Parameter``, but ``Iterable``."""
    parts = name.split(".")
    if parts[0] != "torch" or parts[-1] == "Tensor":
        return parts[-1]
    return ".".join(["torch", *(part for part in parts[1:-1] if part in PACKAGES), parts[-1]])


def fenced(code: str) -> list[str]:
    return ["```py", code, "```", ""]


if __name__ == "__main__":
    sys.exit(main())
