"""The walls of the house, as rules over the syntax tree of one file.

A rule takes a `Source` (where a file stands, and its tree) and gives a sentence for each thing that breaks it. Names
are followed to where they were imported from, so `from os import replace as r; r(...)` is seen as `os.replace`.
What cannot be known without running the code (a method called `rename` on an unknown object) is judged by its name.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

FLOORS = ("core", "methods", "labs", "faces")
LIBRARIES = {"torch", "numpy", "scipy", "safetensors", "einops", "jaxtyping"}
DOORS = {  # library -> the only places that may import it
    "transformers": ("core/pretrained",),
    "tokenizers": ("core/pretrained", "core/tokens", "core/byte_pairs"),
    "huggingface_hub": ("core/pretrained",),
    "gguf": ("core/pretrained",),
    "pyarrow": ("core/store",),
    "datasets": ("core/stream/texts",),
    "argparse": ("faces",),
    "tyro": ("faces",),
    "rich": ("faces",),
    "click": ("faces",),
    "plotly": ("faces",),
}
LABS = ("grokking", "ioi", "planted", "dictionary", "gemma_scope", "sae", "workbench", "othello", "facts")
"""Those that there are or are planned; a test holds the list against the folders."""
LAZY = ("transformers", "tokenizers", "huggingface_hub", "gguf", "pyarrow", "datasets")
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLE_READER = "core/state_dicts/pickles"  # where the user may let a named file in
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}


@dataclass(frozen=True)
class Source:
    """A file of the package, `path` relative to it ("core/sites.py")."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def floor(self) -> str:
        """core, methods, labs or faces; "" for the facade."""
        return self.path.parts[0] if len(self.path.parts) > 1 else ""

    @property
    def room(self) -> str:
        """The folder or file within the floor."""
        return PurePosixPath(self.path.parts[1]).stem if self.floor else ""

    def inside(self, *places: str) -> bool:
        """Whether the file is one of these places (a file without its suffix, or a folder)."""
        here = self.path.with_suffix("").as_posix() + "/"
        return any(here.startswith(place + "/") for place in places)

    @cached_property
    def imports(self) -> list[tuple[str, ast.stmt]]:
        """Every imported dotted name, at any depth, with its statement. `from a import b` gives a.b."""
        return [(name, node) for node in ast.walk(self.tree) for name in _imported(node)]

    @cached_property
    def origins(self) -> dict[str, str]:
        """Name in this file -> the dotted name it was imported as."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {
                    (a.asname or a.name.partition(".")[0]): a.name if a.asname else a.name.partition(".")[0]
                    for a in node.names
                }
            elif isinstance(node, ast.ImportFrom):
                found |= {(a.asname or a.name): f"{node.module}.{a.name}" for a in node.names}
        return found

    @cached_property
    def calls(self) -> list[tuple[str, ast.Call]]:
        """Every call by its dotted name; what is called on an unknown object begins with a dot: ".write_text"."""
        calls = (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return [(self.resolve(call.func), call) for call in calls]

    def resolve(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            root = _root(node)
            known = isinstance(root, ast.Name) and root.id in self.origins
            return f"{self.resolve(node.value)}.{node.attr}" if known else f".{node.attr}"
        return ""

    def at(self, node: ast.AST, text: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {text}"


Rule = Callable[[Source], Iterator[str]]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module or ''}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) and node.args:
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        text = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
        return [text] if name in ("import_module", "__import__") and isinstance(text, str) else []
    return []


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node


def _top(name: str) -> str:
    return name.partition(".")[0]


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _constant(call: ast.Call, name: str) -> object:
    value = _keyword(call, name)
    return value.value if isinstance(value, ast.Constant) else value


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def imports_only_go_down(source: Source) -> Iterator[str]:
    """core <- methods <- labs <- faces; rooms of methods and of labs stay apart, but for the labs' catalogue."""
    for name, node in source.imports:
        package, *inner = name.split(".")
        if package != "micrographia" or not source.floor or not inner or inner[0] not in FLOORS:
            continue
        other, *room = inner
        if FLOORS.index(other) > FLOORS.index(source.floor):
            yield source.at(node, f"{source.floor} looks up at {name}")
        apart = other == source.floor and other in ("methods", "labs") and source.room != "catalogue"
        if apart and room and room[0] != source.room:
            yield source.at(node, f"rooms of {other} stay apart: {source.room} imports {name}")


def nobody_inside_imports_the_facade(source: Source) -> Iterator[str]:
    for name, node in source.imports:
        package, *inner = name.split(".")
        if package == "micrographia" and source.floor and (not inner or inner[0] not in FLOORS):
            yield source.at(node, f"leans on the facade: {name}")


def imports_are_absolute_and_their_names_known(source: Source) -> Iterator[str]:
    """No relative import, no postponed annotations; a module named at run time only where names are resolved lazily."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield source.at(node, "imports relatively")
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield source.at(node, "postpones annotations, which then cannot be executed")
    for name, call in source.calls:
        lazily = source.floor in ("", "faces") or source.inside("labs/catalogue")
        if name.endswith(("import_module", "__import__")) and not lazily and not _imported(call):
            yield source.at(call, "imports a module whose name is not written out")


def the_facade_is_lazy(source: Source) -> Iterator[str]:
    """`import micrographia` loads nothing of weight: at its top the facade imports the standard library alone."""
    if source.path.as_posix() != "__init__.py":
        return
    for node in source.tree.body:
        for name in _imported(node):
            if _top(name) not in sys.stdlib_module_names:
                yield source.at(node, f"the facade imports {name} at once")


def faces_import_no_torch(source: Source) -> Iterator[str]:
    for name, node in source.imports:
        if source.floor == "faces" and _top(name) in (
            "torch",
            "transformers",
            "safetensors",
            "jaxtyping",
            "einops",
            "scipy",
        ):
            yield source.at(node, f"a face shows; labs and methods compute: {name}")


def faces_know_no_lab(source: Source) -> Iterator[str]:
    """Only the command line names labs: everything else is shown by the Figures that they hand over."""
    if source.floor != "faces" or source.inside("faces/cli"):
        return
    for name, node in source.imports:
        if name.startswith("micrographia.labs"):
            yield source.at(node, f"a face knows no lab ({name})")
    for name in named_labs(source.text):
        yield source.at(source.tree, f"names the lab {name}: let it come with the lab's Figures")


def named_labs(text: str) -> list[str]:
    """The labs that a text names, as words or as parts of names."""
    return [name for name in LABS if re.search(rf"(?<![a-z]){name}(?![a-z])", text.lower())]


def libraries_come_in_by_their_doors(source: Source) -> Iterator[str]:
    """core, methods and labs import at most LIBRARIES, and the rest by one door each, lazily where they are heavy."""
    at_the_top = {id(node) for node in source.tree.body}
    for name, node in source.imports:
        top = _top(name)
        if top in DOORS and not source.inside(*DOORS[top]):
            yield source.at(node, f"{top} may be imported in {', '.join(DOORS[top])} only")
        elif top in LAZY and id(node) in at_the_top:
            yield source.at(node, f"{top} is heavy: import it where it is used")
        elif source.floor in ("core", "methods", "labs") and not _known(top):
            yield source.at(node, f"{top} is none of the libraries that {source.floor} stands on")


def _known(top: str) -> bool:
    return top in LIBRARIES or top in DOORS or top == "micrographia" or top in sys.stdlib_module_names or not top


WRITERS = re.compile(
    r"os\.(replace|rename|renames|remove|unlink|mkdir|makedirs|rmdir|removedirs|truncate|ftruncate|link|symlink|open|write"
    r"|fdopen|fsync|chmod|utime|mkfifo)|shutil\.(?!get_terminal_size$|which$|disk_usage$)\w+|tempfile\.\w+|torch\.save"
    r"|torch\.jit\.save|safetensors\.\w+\.(save|save_file|save_model)|numpy\.(save|savez|savez_compressed|savetxt|memmap)"
    r"|pyarrow\..*|json\.dump|(gzip|bz2|lzma)\.open|zipfile\.ZipFile|tarfile\.open|sqlite3\.connect|logging\.FileHandler"
)
WRITING_METHODS = re.compile(
    r"\.(write_text|write_bytes|mkdir|unlink|rmdir|touch|rename|symlink_to|hardlink_to|chmod|tofile|to_parquet|to_csv"
    r"|to_feather|write_html|write_image|write_json|write_table|savefig|makedirs)"
)


def only_the_store_writes_files(source: Source) -> Iterator[str]:
    """By the call's name. The null device is no file."""
    if source.inside("core/store"):
        return
    for name, call in source.calls:
        into_nothing = name == "os.open" and source.resolve(call.args[0]) == "os.devnull"
        by_name = WRITERS.fullmatch(name) or WRITING_METHODS.fullmatch(name)
        if (by_name and not into_nothing) or _opens_to_write(name, call):
            yield source.at(call, f"only core/store writes files: {ast.unparse(call.func)}(...)")


def _opens_to_write(name: str, call: ast.Call) -> bool:
    if name == ".replace":  # Path.replace(target); str.replace takes two, datetime.replace takes keywords
        return len(call.args) == 1 and not call.keywords
    if name in ("open", "io.open"):
        mode = call.args[1] if len(call.args) > 1 else _keyword(call, "mode")
        return mode is not None and (_text(mode) is None or bool(set(_text(mode) or "") & set("wax+")))
    if name == ".open":
        mode = _text(call.args[0] if call.args else _keyword(call, "mode"))
        return mode is not None and re.fullmatch(r"[rwaxbt+]+", mode) is not None and bool(set(mode) & set("wax+"))
    return False


SETTINGS = re.compile(
    r"torch\.(set_num_threads|set_num_interop_threads|set_default_dtype|set_default_device|set_default_tensor_type"
    r"|set_flush_denormal|use_deterministic_algorithms|set_float32_matmul_precision|manual_seed|seed|initial_seed"
    r"|set_rng_state|random\.\w+|cuda\.(is_available|device_count|manual_seed|manual_seed_all|seed|set_device|current_device)"
    r"|backends\.[\w.]+\.is_available|Generator)|numpy\.random\.\w+"
    r"|random\.(?!Random$)\w+|secrets\.\w+|os\.(sched_getaffinity|cpu_count|urandom)|\.cuda|\.manual_seed|\.seed"
)
DRAWS = re.compile(
    r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial|poisson|rand_like|randn_like|randint_like)"
    r"|\.(normal_|uniform_|bernoulli_|random_|exponential_|bernoulli|multinomial)"
    r"|torch\.nn\.init\.(normal_|uniform_|xavier\w+|kaiming\w+|trunc_normal_|orthogonal_)"
)


def only_the_runtime_picks(source: Source) -> Iterator[str]:
    """Device, dtype defaults, threads, seeds: `core/runtime`. A generator is made there and passed in everywhere else.

    The one generator made elsewhere is python's `random.Random(seed)`, whose shuffle is a published split.
    """
    if source.inside("core/runtime"):
        return
    for name, call in source.calls:
        if SETTINGS.fullmatch(name):
            yield source.at(
                call, f"only core/runtime picks device, dtype, threads and generators: {ast.unparse(call.func)}"
            )
        if name == "torch.device" and call.args and (_text(call.args[0]) or "cpu") != "cpu":
            yield source.at(call, f"only core/runtime picks a device: {ast.unparse(call)}")
        if DRAWS.fullmatch(name) and _keyword(call, "generator") is None:
            yield source.at(call, f"draws from the hidden global generator: {ast.unparse(call.func)}")
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and source.resolve(node).startswith("torch.backends")
        ):
            yield source.at(node, f"only core/runtime sets {source.resolve(node)}")


def only_faces_talk(source: Source) -> Iterator[str]:
    """print, input, sys.argv and the standard streams. A lab's `__main__` takes one path and prints the Run's."""
    if source.floor in ("faces", "") or (source.floor == "labs" and source.path.name == "__main__.py"):
        return
    for name, call in source.calls:
        if name in ("print", "input", "warnings.warn", "sys.exit") or name.startswith(
            ("logging.", "sys.stdout.", "sys.stderr.")
        ):
            yield source.at(call, f"only faces talk: {name}(...)")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and source.resolve(node) in ("sys.argv", "sys.stdin"):
            yield source.at(node, f"only faces read {source.resolve(node)}")


def nothing_unpickles(source: Source) -> Iterator[str]:
    """A pickle runs code when read. One reader may let a named file in: weights only, or by an unpickler of its own."""
    reader = source.inside(PICKLE_READER)
    for name, node in source.imports:
        if _top(name) in UNPICKLERS and not reader:
            yield source.at(node, f"imports {name}")
    for name, call in source.calls:
        careful = _constant(call, "weights_only") is True or _keyword(call, "pickle_module") is not None
        if name in ("torch.load", "torch.jit.load") and not (reader and careful):
            yield source.at(call, f"{name} unpickles: only {PICKLE_READER}, with weights_only or its own pickle_module")
        if name == "numpy.load" and _constant(call, "allow_pickle") is not False:
            yield source.at(call, "numpy.load may unpickle: write allow_pickle=False")
        if name in ("pickle.load", "pickle.loads", "eval", "exec"):
            yield source.at(call, f"{name} runs what it reads")


def configs_are_light(source: Source) -> Iterator[str]:
    """A lab's config and the catalogue import no tensor library, so that --help is instant."""
    light = source.floor == "labs" and (source.path.stem.endswith("config") or source.room == "catalogue")
    for name, node in source.imports:
        if light and _top(name) in (*LIBRARIES, *DOORS):
            yield source.at(node, f"a config imports no tensor library: {name}")


def every_module_says_what_it_is(source: Source) -> Iterator[str]:
    if source.tree.body and not ast.get_docstring(source.tree):
        yield source.at(source.tree, "has no docstring")


def packages_hold_no_code(source: Source) -> Iterator[str]:
    """An `__init__` is empty, or only says what the package is and passes names on."""
    if source.path.name != "__init__.py" or not source.floor:
        return
    for node in source.tree.body:
        names = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        if not (isinstance(node, ast.Import | ast.ImportFrom) or names or _is_text(node)):
            yield source.at(node, f"an __init__ holds no code: {ast.unparse(node)[:60]}")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def names_say_something(source: Source) -> Iterator[str]:
    for part in (*source.path.parent.parts, source.path.stem):
        if EMPTY_WORDS & set(part.split("_")):
            yield source.at(source.tree, f"{part!r} says nothing")


def measures_only_measure(source: Source) -> Iterator[str]:
    """A lab's measure.py reads like the paper: no optimiser, hook or file, at most 150 lines."""
    if source.floor != "labs" or source.path.name != "measure.py":
        return
    for name, node in source.imports:
        if name.startswith(("micrographia.core.store", "micrographia.core.training", "torch.optim")):
            yield source.at(node, f"measure.py measures; {name} belongs into run.py")
    for name, call in source.calls:
        if re.fullmatch(r"\.register_\w*hook\w*|\.backward", name):
            yield source.at(call, f"measure.py holds no hook and no gradient: {name}")
    if len(source.text.splitlines()) > 150:
        yield source.at(
            source.tree, f"{len(source.text.splitlines())} lines; at most 150, or a lower floor lacks a tool"
        )


def public_classes(files: Iterable[Source]) -> dict[str, list[str]]:
    """Where each public class is defined: its files, in their order, a file once for each definition."""
    found: dict[str, list[str]] = {}
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(str(file.path))
    return found


def beside_the_facade(source: Source) -> list[str]:
    """What an example imports beside `micrographia` itself and the standard library."""
    names = (name for name, _ in source.imports)
    return [name for name in names if name != "micrographia" and _top(name) not in sys.stdlib_module_names]


def lines_of_labs(files: Iterable[Source]) -> dict[str, int]:
    """How many lines of Python each lab holds: every folder of the third floor is one."""
    found: dict[str, int] = {}
    for file in files:
        if file.floor == "labs" and len(file.path.parts) > 2:
            found[file.room] = found.get(file.room, 0) + len(file.text.splitlines())
    return found


DEAR = {"torch.unravel_index": "numpy.unravel_index"}  # what loads sympy, a second in every process -> the same without


def nothing_loads_sympy(source: Source) -> Iterator[str]:
    """Commands and workers start often."""
    for name, call in source.calls:
        if name in DEAR:
            yield source.at(call, f"{name} loads sympy: {DEAR[name]} does the same")


RULES: tuple[Rule, ...] = (
    imports_only_go_down,
    nobody_inside_imports_the_facade,
    imports_are_absolute_and_their_names_known,
    the_facade_is_lazy,
    faces_import_no_torch,
    faces_know_no_lab,
    libraries_come_in_by_their_doors,
    only_the_store_writes_files,
    only_the_runtime_picks,
    only_faces_talk,
    nothing_unpickles,
    configs_are_light,
    every_module_says_what_it_is,
    packages_hold_no_code,
    names_say_something,
    measures_only_measure,
    nothing_loads_sympy,
)
