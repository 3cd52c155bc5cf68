"""The code that can change a result: the files that modules import, directly or by way of others, found without
importing any.

Counted are ``import a.b``, ``from a import b`` (``b`` a module or a name in ``a``), relative imports, imports inside
functions, and the ``__init__`` of every package on the way; not those under ``if TYPE_CHECKING``. The search stays
within this package, without ``INFRASTRUCTURE``. Of another package, such as a plugin's, every file counts, and all that
its modules import from this one. Imports of ours whose name is computed are not seen.

A file is read once: a process that runs while its files are edited goes on with the code that it has loaded.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import gc
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rosepo_bench.base.seeds import digest

PACKAGE = "rosepo_bench"
OURS = Path(__file__).resolve().parents[1]
# They decide when a stage is computed and what is said about it, never what it holds: a correction of a lock or of a
# message must not cost days of training.
INFRASTRUCTURE = frozenset(
    f"{PACKAGE}.{name}" for name in ("base.closure", "base.lease", "base.manifest", "base.progress", "pipeline.stages")
)


class Source(NamedTuple):
    """A file as the closure sees it: the hash of its code, and its imports as dots before the name, the name, and what
    is taken from it."""

    sha256: str
    imports: tuple[tuple[int, str, tuple[str, ...]], ...]


def modules(*parts: object) -> frozenset[str]:
    """The modules that define ``parts``: modules, functions, classes; of an instance its class, and of a dataclass's
    instance also what its fields hold. The standard library's are left out."""
    found = (name for part in parts for name in _defining(part))
    return frozenset(name for name in found if _top(name) not in sys.stdlib_module_names)


def _defining(part: Any) -> Iterator[str]:
    if isinstance(part, ModuleType):
        yield part.__name__
    elif isinstance(part, functools.partial):
        yield from _defining(part.func)
    elif inspect.ismethod(part):
        yield from (*_defining(part.__func__), *_defining(part.__self__))
    elif isinstance(part, type) or inspect.isroutine(part):
        yield part.__module__ or "builtins"
    else:
        yield type(part).__module__
        if dataclasses.is_dataclass(part):
            for field in dataclasses.fields(part):
                yield from _held(getattr(part, field.name))


def _held(value: Any) -> Iterator[str]:
    """The modules of a field's value, if it is a dataclass's instance or a collection of such."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list | frozenset | set):
        for inner in value:
            yield from _held(inner)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _defining(value)


def _top(name: str) -> str:
    return name.partition(".")[0]


@functools.cache
def code_digest(names: frozenset[str]) -> str:
    """sha256 over names and code of :func:`files`. Comments, docstrings and the files' folders do not change it."""
    return digest(*([name, _source(path).sha256] for name, path in sorted(files(names).items())))


def files(names: Iterable[str]) -> dict[str, Path]:
    """The files that the modules ``names`` can run, by module name; another package's data files by their place in it.
    Modules that are not there are left out."""
    waiting, seen, found = list(names), set[str](), dict[str, Path]()
    for top in {_top(name) for name in waiting} - {PACKAGE}:
        whole = _whole(top)
        found |= whole
        waiting += [name for name in whole if "/" not in name]
    while waiting:
        name = waiting.pop()
        spec = None if name in seen or name in INFRASTRUCTURE else find(name)
        seen.add(name)
        if path := _file(spec):
            found[name] = path
        waiting += _imported(name) if spec else ()
    return found


def _whole(top: str) -> dict[str, Path]:
    """Every file below the folders of a top-level package, modules by their names."""
    spec, found = find(top), dict[str, Path]()
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(folder).rglob("*")):
            inside = path.relative_to(folder)
            if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in inside.parts):
                found[_name(top, inside)] = path
    return found


def _name(top: str, inside: Path) -> str:
    """A module's name; of any other file the path."""
    if inside.suffix != ".py":
        return f"{top}/{inside.as_posix()}"
    parts = (top, *inside.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _imported(name: str) -> tuple[str, ...]:
    """Absolute names of what a module may import from its own top-level package and from ours, and of its parent."""
    spec, parent = find(name), name.rpartition(".")[0]
    package = name if spec and spec.submodule_search_locations is not None else parent
    wanted = [parent]
    for level, module, names in _source(path).imports if (path := _file(spec)) else ():
        base = package.rsplit(".", level - 1)[0] if level else ""
        full = ".".join(part for part in (base, module) if part)
        wanted += [full, *(f"{full}.{inner}" for inner in names)]  # a name may be a module too
    return tuple(one for one in wanted if _top(one) in (PACKAGE, _top(name)))


@functools.cache
def find(name: str) -> ModuleSpec | None:
    """Where a module lies, asked of the finders that Python's own import asks."""
    loaded, parent = sys.modules.get(name), name.rpartition(".")[0]
    if name == "__main__":
        path = getattr(loaded, "__file__", None)
        return spec_from_file_location(name, path) if path else None
    above = find(parent) if parent else None
    folders = above.submodule_search_locations if above else None
    if parent and folders is None:
        return None
    if loaded and loaded.__spec__ and not parent:
        return loaded.__spec__
    try:
        return next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, folders))), None)
    except KeyError:  # a folder without ``__init__`` whose parent has not been imported
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(Path(folder, name.rpartition(".")[2])) for folder in folders or ()]
        return spec


def _file(spec: ModuleSpec | None) -> Path | None:
    """A module's file; None for a package without ``__init__``."""
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


@functools.cache
def _source(path: Path) -> Source:
    """A file's code and imports. Compiled modules, and what is not Python, are hashed by their bytes; our own compiled
    modules by name, as builds of one source differ: the stages that run them have the build's id in their inputs."""
    content, reader = path.read_bytes(), _Reader()
    if path.suffix != ".py" and path.is_relative_to(OURS):
        content = path.name.partition(".")[0].encode()
    elif path.suffix == ".py":
        with _uncollected(), contextlib.suppress(SyntaxError, ValueError):  # wrong code cannot run either
            content = ast.dump(reader.visit(ast.parse(content))).encode()
    return Source(hashlib.sha256(content).hexdigest(), tuple(reader.imports))


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Holds the garbage collector back. A tree's many nodes would make it run again and again, over all that is
    loaded, which takes a third of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class _Reader(ast.NodeTransformer):
    """Collects a tree's imports, and takes out bare strings, docstrings among them, and what is there for types."""

    def __init__(self) -> None:
        self.imports: list[tuple[int, str, tuple[str, ...]]] = []

    def visit(self, node: ast.AST) -> Any:
        return node if isinstance(node, ast.expr) else super().visit(node)  # no import lies within an expression

    def visit_Import(self, node: ast.Import) -> ast.AST:
        self.imports += [(0, alias.name, ()) for alias in node.names]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        self.imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_If(self, node: ast.If) -> ast.AST:
        if getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            node.body = []
        return self.generic_visit(node)
