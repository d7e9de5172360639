"""The package's shape: imports point down, modules stay small, annotated, finished."""

from __future__ import annotations

import ast
import re
import tokenize
from pathlib import Path

import pytest

from helpers.paths import PACKAGE, ROOT

# The floors, lowest first. A file may import from lower floors and, inside its own
# folder, from files that do not lead back to it. A name of a folder is for all of its
# files; a file of its own floor is listed with its folder.
FLOORS = [
    {"pipes"},
    {
        *("files", "progress", "cpu_kernels", "precision", "blockwise", "languages"),
        *("settings", "extras", "html_page", "processes", "quantization"),
        "variables",
    },
    {
        *("text", "duplicates", "vocabulary_softmax", "distribute", "presets"),
        *("recipes", "plots", "saved_model", "nested"),
    },
    {"layers", "tokenizers", "losses", "metrics", "optimizers", "mining", "adapters"},
    {"preprocessing"},
    {"data", "evaluation", "alignment", "review"},
    {"models"},
    {"hub", "checkpoints"},
    {"encoders"},
    {"export", "training", "trimming"},
    {"pretraining", "quickstart", "doctor", "distillation"},
    {"cli"},
    {"beam"},
    # What starts the command line, and the package's face with its lazy names.
    {"__main__", "__init__"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

# Private names that a class has from its base in argparse, or in Keras or KerasHub,
# whose versions setup.py bounds for their sake.
INHERITED = {
    "cli.parsing": {"_option_string_actions"},
    "hub": {"_track_variable", "_trainable_variables"},
    "models.low_rank": {"_tracker"},
    "optimizers": {
        *("_get_variable_index", "_momentums", "_velocities", "_use_weight_decay"),
    },
}
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
STORES = (ast.Assign, ast.AnnAssign)

# These work under another Keras backend, with TensorFlow not even installed.
FREE_OF_TENSORFLOW = {
    *("adapters", "alignment"),
    *("blockwise", "cpu_kernels", "duplicates", "evaluation", "languages", "layers"),
    *("losses", "metrics", "mining", "models", "optimizers", "precision", "presets"),
    *("pretraining", "quantization", "recipes", "settings", "text", "training"),
    *("variables", "vocabulary_softmax"),
}
TENSORFLOW = {"tensorflow", "tensorflow_text", "tensorflow_hub", "tf_keras"}


def modules() -> dict[str, Path]:
    """The name of each file inside the package: `losses`, `data.corpus`, `data`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name if name == "__init__" else name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


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


def own_imports(module: str, tree: ast.AST) -> list[tuple[int, str]]:
    """(line, file of labse_tf) for every import, in functions and for types too.

    A name that is not a file's is looked for in the longest name that is one:
    `from labse_tf.models import LaBSE` imports `models`, the face of that folder.
    """
    parts = module.split(".")
    is_folder = MODULES.get(module, Path()).name == "__init__.py"
    package = ".".join(["labse_tf", *(parts if is_folder else parts[:-1])])
    if module == "__init__":
        package = "labse_tf"
    found = []
    for node in ast.walk(tree):
        for name in imported_names(node, package):
            root, *rest = name.split(".")
            if root != "labse_tf":
                continue
            while rest and ".".join(rest) not in MODULES:
                rest.pop()
            # `from labse_tf import __version__` is the package itself, `from
            # labse_tf import LaBSE` would be its lazy names: see below.
            found.append((node.lineno, ".".join(rest) or "__init__"))
    return found


def floor_of(module: str) -> int:
    return FLOOR[module.split(".")[0]]


def upward_imports(module: str, tree: ast.AST) -> list[str]:
    """Imports from the same floor or a higher one, other than in one's own folder."""
    return [
        f"{module}:{line} imports {other}"
        for line, other in own_imports(module, tree)
        if other != "__init__"
        and other.split(".")[0] != module.split(".")[0]
        and floor_of(other) >= floor_of(module)
    ]


def find_circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of files that lead to each other, one list for each group."""
    reached = {}
    for start in graph:
        seen, todo = set(), [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    todo.append(other)
        reached[start] = seen
    groups = {
        tuple(sorted(o for o in reached[name] if name in reached.get(o, ())))
        for name in graph
        if name in reached[name]
    }
    return sorted(map(list, groups))


def is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.endswith("__")


def private_members(tree: ast.AST) -> set[str]:
    """The private attributes that the classes of a file define."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
                    found.add(part.name)
                for name in ast.walk(part) if isinstance(part, STORES) else ():
                    if isinstance(name, ast.Name):
                        found.add(name.id)
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) in ("self", "cls")
        ):
            found.add(node.attr)
    return set(filter(is_private, found))


def attributes(tree: ast.AST) -> set[str]:
    """Names of attributes and methods that a file uses or defines."""
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    return found | {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def private_names(module: str, tree: ast.AST) -> list[str]:
    """Private names of other files that a file uses."""
    own = private_members(tree) | INHERITED.get(module, set()) | NAMED_TUPLE
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imported |= {a.asname or a.name.split(".")[0] for a in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{a.name}" for a in node.names if is_private(a.name)
            ]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            base = ast.unparse(node.value)
            is_module = base.split(".")[0] in imported
            names = [f"{base}.{node.attr}"] * (is_module or node.attr not in own)
        else:
            names = []
        found += [f"{module}:{node.lineno} uses {name}" for name in names]
    return found


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


def test_every_module_has_its_floor():
    tops = {name.split(".")[0] for name in MODULES}
    assert tops == set(FLOOR)
    assert sum(map(len, FLOORS)) == len(FLOOR), "a name is on two floors"


def test_imports_point_down():
    wrong = []
    for module, path in MODULES.items():
        wrong += upward_imports(module, parse(path))
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "code", "count"),
    [
        ("losses", "from labse_tf import distribute", 0),
        ("losses", "from .distribute import all_gather_rows", 0),
        ("losses", "from labse_tf.models import LaBSE", 1),
        ("losses", "def f():\n    import labse_tf.models as m", 1),
        ("losses", "from . import models, distribute", 1),
        ("losses", "from labse_tf import metrics", 1),
        ("losses", "if TYPE_CHECKING:\n    from labse_tf.models import LaBSE", 1),
        ("losses", "from labse_tf import __version__", 0),
        ("models.backbone", "from labse_tf.models.dual_encoder import a", 0),
        ("models.backbone", "from . import dual_encoder\nfrom .. import hub", 1),
        ("models.backbone", "import labse_tf.data.corpus", 0),
        ("models", "from .backbone import LaBSEBackbone", 0),
        ("models", "from ..losses import a\nfrom ..training import b", 1),
        ("cli", "from labse_tf import quickstart", 0),
        ("quickstart", "from labse_tf import cli", 1),
    ],
)
def test_the_import_check_sees_what_it_should(module, code, count):
    assert len(upward_imports(module, ast.parse(code))) == count


def test_every_import_is_of_a_file_or_its_names():
    imports = own_imports(
        "models.backbone",
        ast.parse(
            "import labse_tf.data.corpus as c\n"
            "from labse_tf.data import corpus, load_pairs\n"
            "from . import dual_encoder\n"
            "from .. import losses, __version__\n"
            "from labse_tf.losses import AdditiveMarginSoftmax\n"
            "from keras import losses"
        ),
    )
    assert imports == [
        (1, "data.corpus"),
        (2, "data.corpus"),
        (2, "data"),
        (3, "models.dual_encoder"),
        (4, "losses"),
        (4, "__init__"),
        (5, "losses"),
    ]


def test_no_file_leads_back_to_itself():
    graph = {
        module: {other for _, other in own_imports(module, parse(path))} - {"__init__"}
        for module, path in MODULES.items()
    }
    assert find_circles(graph) == []


def test_the_circle_check_sees_what_it_should():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a", "f"}}
    assert find_circles(graph) == [["a", "b", "c"]]
    graph |= {"c": {"d"}, "d": {"d"}, "f": {"e"}}
    assert find_circles(graph) == [["d"], ["e", "f"]]


def test_no_private_name_crosses_files():
    wrong = []
    for module, path in MODULES.items():
        wrong += private_names(module, parse(path))
    assert wrong == []


def test_every_exemption_is_used():
    """Else a private name could come back unseen."""
    unused = {
        f"{module}.{name}"
        for module, names in INHERITED.items()
        for name in names - attributes(parse(MODULES[module]))
    }
    assert unused == set()


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("from labse_tf.losses import _x", ["labse_tf.losses._x"]),
        ("def f():\n    from .losses import a, _x as y", ["losses._x"]),
        ("from labse_tf import losses\nlosses._x()", ["losses._x"]),
        ("import labse_tf.losses as m\n_x = m._x", ["m._x"]),
        ("import labse_tf.losses\nlabse_tf.losses._x", ["labse_tf.losses._x"]),
        ("def f(corpus):\n    return corpus._rows[0]", ["corpus._rows"]),
        ("def _rows(): ...\ndef f(c):\n    return c._rows", ["c._rows"]),
        ("class A(B):\n    def f(self):\n        return self._x", ["self._x"]),
        ("class A:\n    def f(self):\n        self._x = 1\nA()._x", []),
        ("class A:\n    _x: int = 1\ndef f(a):\n    return a._x", []),
        ("class A:\n    def _x(self): ...\n    def f(self, b):\n        b._x()", []),
        ("class A(B):\n    def f(self):\n        return super()._x()", ["super()._x"]),
        ("from __future__ import annotations\na.__dict__, b._replace(c=1)", []),
        ("def _f(): ...\n_f()\nfor _ in a: ...", []),
    ],
)
def test_the_check_of_private_names_sees_what_it_should(code, wrong):
    found = private_names("module", ast.parse(code))
    assert [line.split(" uses ")[1] for line in found] == wrong


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


@pytest.mark.parametrize(
    "module",
    [
        "labse_tf",
        *(f"labse_tf.{name}" for name in ("cli", "evaluation", "languages", "text")),
    ],
)
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


def test_no_test_compares_whole_sentences_of_errors():
    """`helpers.errors` checks their fields; prose may be rewritten."""
    wrong = []
    for path in sorted((ROOT / "tests").glob("*.py")):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                *("pytest.raises", "pytest.warns"),
            ):
                for keyword in node.keywords:
                    words = re.findall(r"[A-Za-z]{2,}", ast.unparse(keyword.value))
                    if keyword.arg == "match" and len(words) > 3:
                        wrong.append(f"{path.name}:{node.lineno} {words}")
    assert wrong == []
