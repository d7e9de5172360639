"""The package's shape: imports point down, modules stay small, annotated, finished."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

from helpers.paths import PACKAGE, ROOT

# Highest first; a module may import from layers below its own. Modules of one layer
# may import each other where INSIDE says so.
LAYERS = [
    {"__main__"},
    {"cli", "quickstart", "beam"},
    {"pretraining"},
    {"training", "checkpoints", "export", "trimming"},
    {"models", "data", "metrics"},
    {"preprocessing", "losses", "hub", "evaluation", "optimizers"},
    {"tokenizers", "layers", "distribute", "mining", "presets", "recipes"},
    {"files", "progress", "blocks", "kernels"},
]
INSIDE = {("cli", "quickstart"), ("beam", "cli"), ("models", "metrics")}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# These work under another Keras backend, with TensorFlow not even installed.
FREE_OF_TENSORFLOW = {
    *(
        "recipes",
        "presets",
        "blocks",
        "kernels",
        "layers",
        "models",
        "losses",
        "metrics",
    ),
    *("optimizers", "pretraining", "mining", "evaluation"),
}
TENSORFLOW = {"tensorflow", "tensorflow_text", "tensorflow_hub", "tf_keras"}


def modules() -> dict[str, Path]:
    """Module names (a folder counts as the module of its name) of all files."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported_names(node: ast.AST, package: str = "labse_tf") -> list[str]:
    """Full dotted names that an import statement brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        parts = parts[: len(parts) - node.level + 1]
        base = ".".join([*parts, base]) if base else ".".join(parts)
    return [f"{base}.{alias.name}" for alias in node.names]


def own_imports(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, module of labse_tf) for every import in `tree`, in functions too."""
    found = []
    for node in ast.walk(tree):
        for name in imported_names(node):
            parts = name.split(".")
            if parts[0] == "labse_tf" and len(parts) > 1:
                found.append((node.lineno, parts[1]))
    return found


def upward_imports(module: str, tree: ast.AST) -> list[str]:
    top = module.split(".")[0]
    wrong = []
    for line, other in own_imports(tree):
        # `from labse_tf import __version__` is the package itself.
        if other not in LEVEL or other == top:
            continue
        if LEVEL[other] > LEVEL[top] or (top, other) in INSIDE:
            continue
        wrong.append(f"{module}:{line} imports {other}")
    return wrong


def module_level_imports(tree: ast.Module) -> set[str]:
    """Roots of the packages that are imported when the module is."""
    found: set[str] = set()
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        found.update(name.split(".")[0] for name in imported_names(node))
        todo.extend(ast.iter_child_nodes(node))
    return found


def test_every_module_has_its_place():
    tops = {name.split(".")[0] for name in modules()} - {"__init__"}
    assert tops <= set(LEVEL), f"not in the layers: {sorted(tops - set(LEVEL))}"


def test_imports_point_down():
    wrong = []
    for module, path in modules().items():
        if module != "__init__":
            wrong += upward_imports(module, parse(path))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "code", "count"),
    [
        ("losses", "from labse_tf import distribute", 0),
        ("losses", "from .distribute import all_gather_rows", 0),
        ("losses", "from labse_tf.models import LaBSE", 1),
        ("losses", "def f():\n    import labse_tf.models as m", 1),
        ("losses", "from . import models, distribute", 1),
        ("losses", "from labse_tf import evaluation", 1),
        ("losses", "from labse_tf import __version__", 0),
        ("cli", "from labse_tf import quickstart", 0),
        ("quickstart", "from labse_tf import cli", 1),
    ],
)
def test_the_import_check_sees_what_it_should(module, code, count):
    assert len(upward_imports(module, ast.parse(code))) == count


def test_modules_free_of_tensorflow():
    wrong = []
    for module, path in modules().items():
        if module.split(".")[0] in FREE_OF_TENSORFLOW:
            found = module_level_imports(parse(path)) & TENSORFLOW
            wrong += [f"{module} imports {name}" for name in sorted(found)]
    assert not wrong, "\n".join(wrong)


def test_the_tensorflow_check_sees_what_it_should():
    inside = "def f():\n    import tensorflow as tf"
    typing = "if TYPE_CHECKING:\n    import tensorflow as tf\nelse:\n    import a"
    guarded = "try:\n    from tensorflow.nest import map\nexcept ImportError:\n    pass"
    assert module_level_imports(ast.parse(inside)) == set()
    assert module_level_imports(ast.parse(typing)) == {"a"}
    assert module_level_imports(ast.parse(guarded)) == {"tensorflow"}


@pytest.mark.parametrize("module", ["labse_tf", "labse_tf.cli", "labse_tf.evaluation"])
def test_light_modules_import_nothing_heavy(module, run_python):
    heavy = run_python(
        f"""
        import sys, {module}
        heavy = {sorted(TENSORFLOW)} + ["keras", "keras_hub", "torch", "jax"]
        print(*[name for name in heavy + ["matplotlib"] if name in sys.modules])
        """
    )
    assert heavy.split() == []


def test_no_module_is_too_long():
    lengths = {
        module: len(path.read_text(encoding="utf-8").splitlines())
        for module, path in modules().items()
    }
    assert {m: n for m, n in lengths.items() if n > 900} == {}


def test_no_assert_in_library_code():
    found = [
        f"{module}:{node.lineno}"
        for module, path in modules().items()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_nothing_is_left_to_do():
    found = []
    for module, path in modules().items():
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                marked = re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string)
                # In strings XXX stands for a language's code.
                if marked and token.type == tokenize.COMMENT:
                    found.append(f"{module}:{token.start[0]} {token.string}")
    assert found == []


def public_functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef, bool]]:
    """(name, function, is it a method) of what a user may call."""
    found = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef) and (
                not node.name.startswith("_") or node.name == "__init__"
            ):
                found.append((prefix + node.name, node, bool(prefix)))

    visit(tree.body, "")
    return found


def unannotated(function: ast.FunctionDef, is_method: bool) -> list[str]:
    """What of a function's signature has no annotation."""
    a = function.args
    named = [*a.posonlyargs, *a.args]
    static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
    if is_method and not static:
        named = named[1:]
    named += [*a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
    missing = [argument.arg for argument in named if argument.annotation is None]
    if function.returns is None:
        missing.append("return")
    return missing


def test_public_functions_are_annotated_and_documented():
    wrong = []
    for module, path in modules().items():
        for name, function, is_method in public_functions(parse(path)):
            missing = unannotated(function, is_method)
            if missing:
                wrong.append(f"{module}.{name}: no types for {', '.join(missing)}")
            # A class says in its own docstring what its constructor takes.
            inherited = function.name == "__init__" or any(
                ast.unparse(d).split(".")[-1] in ("override", "setter")
                for d in function.decorator_list
            )
            if not inherited and not ast.get_docstring(function):
                wrong.append(f"{module}.{name}: no docstring")
    assert not wrong, "\n".join(wrong)


def test_the_annotation_check_sees_what_it_should():
    tree = ast.parse(
        "def f(a: int, b, *c, d, **e: int): ...\n"
        "class A:\n"
        "    def __init__(self, x) -> None: ...\n"
        "    @staticmethod\n"
        "    def g(y) -> int: ...\n"
        "    def _h(self, z): ...\n"
        "class _B:\n"
        "    def k(self, z): ...\n"
    )
    found = {
        name: unannotated(function, is_method)
        for name, function, is_method in public_functions(tree)
    }
    assert found == {
        "f": ["b", "d", "c", "return"],
        "A.__init__": ["x"],
        "A.g": ["y"],
    }


def test_modules_and_public_classes_are_documented():
    wrong = []
    for module, path in modules().items():
        tree = parse(path)
        if not ast.get_docstring(tree):
            wrong.append(module)
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    wrong.append(f"{module}.{node.name}")
    assert wrong == []


def test_no_test_file_imports_another():
    """What several of them need lies in `helpers`, found from tests/ by pytest."""
    wrong = []
    folder = ROOT / "tests"
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(parse(path)):
            for name in imported_names(node):
                found = set(name.split(".")[:2])
                if any(part.startswith("test_") for part in found) or (
                    "conftest" in found
                ):
                    wrong.append(f"{path.relative_to(folder)}:{node.lineno} {name}")
    assert wrong == []
