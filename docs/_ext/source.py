"""The package's source as Markdown: modules with their public functions, a Config's fields, the table of Sites, claims.

Read off the syntax tree, so that nothing heavy is imported and annotations stand as they were written. Docstrings are
Markdown already but for doctests and angle brackets.
"""

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"

Documented = ast.FunctionDef | ast.ClassDef | ast.Module


def path_of(module: str) -> Path:
    """The file of a module: `micrographia.core.sites`, or a room's `__init__`."""
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def module_page(module: str) -> str:
    """A module as a section: its docstring, then each public class and function."""
    text = path_of(module).read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [f"## `{module}`", docstring(tree)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            parts += [f"### `{node.name}`", *_described(node, text)]
    return "\n\n".join(part for part in parts if part)


def public_names(module: str) -> list[str]:
    """The classes and functions that `module_page` shows."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    named = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in named if not name.startswith("_")]


def fields_table(module: str, name: str) -> str:
    """The fields of a dataclass with type, default and the docstring below each."""
    text = path_of(module).read_text(encoding="utf-8")
    (found,) = [n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == name]
    rows = [(f"`{field}`", f"`{kind}`", f"`{default}`", told) for field, kind, default, told in _fields(found)]
    return table(("field", "type", "default", "what it is"), rows)


def sites_table() -> str:
    """Every kind of Site with the axes of its value: the table of `reference/sites.md`, which is read unbuilt too."""
    from micrographia.core.sites import AXES, LAYERLESS, LENS_LAYERLESS, LENS_NAMES

    lens = {ours: theirs for theirs, ours in (LENS_NAMES | LENS_LAYERLESS).items()}
    rows = [
        (f"`{kind if kind in LAYERLESS else f'L0.{kind}'}`", " ".join(axes), f"`{lens[kind]}`" if kind in lens else "")
        for kind, axes in AXES.items()
    ]
    return table(("Site", "axes", "TransformerLens' hook, after `blocks.0.` for a layer's"), rows)


def claims_table(lab: str) -> str:
    """What a lab's `claims.toml` says was published."""
    text = (SOURCE / "micrographia" / "labs" / lab / "claims.toml").read_text(encoding="utf-8")
    claims = tomllib.loads(text)["claim"]
    rows = [(f"`{c['id']}`", c["text"], c["source"], ", ".join(c.get("presets", ()))) for c in claims]
    return table(("claim", "what was published", "source", "judged at"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def docstring(node: Documented) -> str:
    return _markdown(ast.get_docstring(node, clean=True) or "")


def _described(node: ast.FunctionDef | ast.ClassDef, text: str) -> Iterator[str]:
    yield _code(_head(node, text))
    yield docstring(node)
    if not isinstance(node, ast.ClassDef):
        return
    fields = [(f"`{name}`", f"`{kind}`", told) for name, kind, _, told in _fields(node)]
    if any(told for *_, told in fields):
        yield table(("field", "type", "what it is"), fields)
    elif fields:
        yield "Fields: " + ", ".join(f"`{name}: {kind.strip(chr(96))}`" for name, kind, _, _ in _fields(node))
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_") and docstring(method):
            yield _code(_head(method, text))
            yield docstring(method)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, annotation, default and docstring of each annotated field."""
    for at, field in enumerate(node.body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        after = node.body[at + 1] if at + 1 < len(node.body) else None
        told = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        yield field.target.id, ast.unparse(field.annotation), _default(field.value), _inline(str(told))


def _default(value: ast.expr | None) -> str:
    if value is None:
        return "required"
    made = [k.value for k in value.keywords if k.arg == "default_factory"] if isinstance(value, ast.Call) else []
    return f"{ast.unparse(made[0])}()" if made else ast.unparse(value)


def _head(node: ast.FunctionDef | ast.ClassDef, text: str) -> str:
    """The lines from the first decorator or `def` to the colon before the body, as they stand in the file."""
    lines = text.splitlines()
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    last = node.body[0].lineno - 1
    return inspect.cleandoc("\n".join(lines[first - 1 : max(last, first)])).rstrip().removesuffix(":")


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _markdown(text: str) -> str:
    """Doctests and indented blocks fenced, angle brackets outside of code kept as they are."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith(">>>"):
            paragraphs.append(f"```pycon\n{inspect.cleandoc(block)}\n```")
        elif block.startswith("    "):
            paragraphs.append(f"```text\n{block}\n```")
        else:
            paragraphs.append(_inline(block))
    return "\n\n".join(paragraphs)


def _inline(text: str) -> str:
    """Markdown but for angle brackets and products such as a*b; code in backticks stays."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"(?<=\w)\*(?=\w)", r"\*", text.replace("<", "&lt;"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")
