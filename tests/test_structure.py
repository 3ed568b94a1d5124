"""The shape of the code itself: which way imports go, what is never called, and what a log line is never given."""

import ast
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "worker", "trainer")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    """`worker/engine/__init__.py` is `worker.engine`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


KNOWN = {name_of(path): tree_of(path) for path in MODULES}

every_module = pytest.mark.parametrize("module", KNOWN)


def imports(tree: ast.AST) -> set[str]:
    """Every module that is imported anywhere below; `from worker import text` is `worker.text`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & KNOWN.keys()) or {node.module}
    return found


def test_there_is_something_to_look_at() -> None:
    assert {name.partition(".")[0] for name in KNOWN} == set(PACKAGES)
    assert len(KNOWN) > 30


# --- one direction ---


@every_module
def test_imports_go_one_way(module: str) -> None:
    """schemas <- worker <- trainer: what serves never depends on what trains, and nothing on the tests."""
    package = module.partition(".")[0]
    forbidden = {*PACKAGES[PACKAGES.index(package) + 1 :], "tests", "conftest", "deploy"}

    assert not [name for name in imports(KNOWN[module]) if name.partition(".")[0] in forbidden]


@pytest.mark.parametrize("module", [name for name in KNOWN if name.partition(".")[0] == "schemas"])
def test_the_records_need_nothing_but_pydantic(module: str) -> None:
    roots = {name.partition(".")[0] for name in imports(KNOWN[module])}

    assert roots <= {"schemas", "pydantic"} | sys.stdlib_module_names


def test_only_the_loop_and_the_service_name_both_ends_of_the_route() -> None:
    both = [module for module, tree in KNOWN.items() if {"worker.source", "worker.outbox"} <= imports(tree)]

    assert set(both) <= {"worker.loop", "worker.service"}
    assert "worker.loop" in both


STATIONS = {"worker.intake", "worker.tokens", "worker.verdict", "worker.letters", "worker.artifact", "worker.text"}


@pytest.mark.parametrize("module", sorted(STATIONS))
def test_a_station_knows_nothing_of_kafka(module: str) -> None:
    """So that a file is scored by the very same code."""
    reached, open_ = set[str](), {module}
    while open_:
        name = open_.pop()
        reached.add(name)
        open_ |= (imports(KNOWN[name]) & KNOWN.keys()) - reached if name in KNOWN else set()

    roots = {name.partition(".")[0] for known in reached for name in imports(KNOWN[known])}
    assert "kafka" not in roots


def at_import(tree: ast.Module) -> set[str]:
    """What is imported as soon as the module is, and not inside a function or for the type checker alone."""
    statements = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If)
    ]
    return set().union(*(imports(node) for node in statements))


def test_imports_make_no_circle() -> None:
    ways = {module: (at_import(tree) & KNOWN.keys()) - {module} for module, tree in KNOWN.items()}

    while free := {module for module, needed in ways.items() if not needed & ways.keys()}:
        ways = {module: needed for module, needed in ways.items() if module not in free}

    assert not ways


@pytest.mark.parametrize("module", ["schemas", "worker.cli", "worker.service", "trainer.cli"])
def test_a_command_starts_without_a_framework(module: str) -> None:
    """`--help` and a mistake in the settings must not wait for TensorFlow."""
    code = f"import sys, {module}; print([name for name in ('tensorflow', 'keras', 'torch') if name in sys.modules])"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert ended.stdout == "[]\n"


# --- what executes what it reads ---

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "h5py"}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {
    "load_model": "keras runs what a model file asks for",
    "model_from_json": "keras runs what a model file asks for",
    "unsafe_load": "YAML makes any object",
    "full_load": "YAML makes any object",
    "system": "a shell",
    "popen": "a shell",
}
"""Names that are fine as methods of our own are not here; a call with one of these is refused whoever it belongs to."""


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Everything below that could run code out of a file."""
    for name in imports(tree):
        if name.partition(".")[0] in UNSAFE_MODULES:
            yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
            yield f"line {node.lineno}: {node.id}"
        if isinstance(node, ast.ImportFrom):
            yield from (f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in UNSAFE_CALLS)
        if isinstance(node, ast.Attribute) and node.attr in UNSAFE_CALLS:
            yield f"line {node.lineno}: {node.attr}"
        if isinstance(node, ast.Call):
            yield from _unsafe_call(node)


def _unsafe_call(call: ast.Call) -> Iterator[str]:
    for keyword in call.keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else "not a constant"
        if (keyword.arg, value) in {("allow_pickle", True), ("shell", True), ("trust_remote_code", True)}:
            yield f"line {call.lineno}: {keyword.arg}=True"
        if (keyword.arg, value) in {("weights_only", False), ("safe_mode", False), ("verify", False)}:
            yield f"line {call.lineno}: {keyword.arg}=False"
        if keyword.arg in ("allow_pickle", "shell") and value == "not a constant":
            yield f"line {call.lineno}: {keyword.arg} may be true"
    function = ast.unparse(call.func)
    if function == "yaml.load":
        yield f"line {call.lineno}: yaml.load"


@every_module
def test_nothing_that_is_read_is_executed(module: str) -> None:
    assert list(unsafe(KNOWN[module])) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import joblib",
        "from pickle import loads",
        "def f():\n    import _pickle as p",
        "import yaml; yaml.load(text)",
        "import yaml; yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "eval(text)",
        "exec(text)",
        "run = eval",
        "compile(text, '', 'exec')",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "keras.models.load_model(path)",
        "from keras.models import load_model",
        "load = keras.saving.load_model",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
        "AutoConfig.from_pretrained(name, trust_remote_code=True)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_code_that_executes_what_it_reads_would_be_found(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "json.load(file)",
        "tomllib.load(file)",
        "re.compile(pattern)",
        "model.eval()",
        "load_weights(network, path)",
        "subprocess.run([a, b])",
    ],
)
def test_harmless_code_is_left_alone(code: str) -> None:
    assert list(unsafe(ast.parse(code))) == []


# --- what a log line is given ---

LEVELS = {logging.getLevelName(level).lower() for level in (10, 20, 30, 40, 50)} | {"exception", "log"}


def leaks(tree: ast.AST) -> Iterator[str]:
    """Log calls inside `except … as error` that are given the error itself: its text can hold a record."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        for call in ast.walk(handler):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {f"log.{level}" for level in LEVELS}:
                harmless = {id(inner) for node in ast.walk(call) if _asks_for_type(node) for inner in ast.walk(node)}
                yield from (
                    f"line {node.lineno}: {ast.unparse(call)}"
                    for node in ast.walk(call)
                    if isinstance(node, ast.Name) and node.id == handler.name and id(node) not in harmless
                )


def _asks_for_type(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "type"


@every_module
def test_no_log_line_is_given_the_text_of_an_exception(module: str) -> None:
    assert list(leaks(KNOWN[module])) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('log.warning("x", extra={"cause": type(error).__name__})', False),
        ('log.warning("x", exc_info=True)', False),
        ('log.warning("x", extra={"cause": str(error)})', True),
        ('log.error("x: %s", error)', True),
        ('log.exception(f"x: {error}")', True),
        ("print(error)", False),
    ],
)
def test_a_log_line_with_the_text_of_an_exception_would_be_found(line: str, found: bool) -> None:
    assert bool(list(leaks(ast.parse(f"try:\n    pass\nexcept ValueError as error:\n    {line}\n")))) is found


# --- the tests themselves ---


def test_the_tests_are_no_packages() -> None:
    """pytest imports each file by its path; an __init__ would change what they can see of each other."""
    assert not list((ROOT / "tests").rglob("__init__*"))


def test_every_test_is_found() -> None:
    """A test whose name does not begin with `test_`, or that stands in a file without it, never runs."""
    lost = []
    for path in (ROOT / "tests").rglob("*.py"):
        defined = [node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef)]
        if not path.name.startswith("test_"):
            lost += [f"{path.name}: {name}" for name in defined if name.startswith("test_")]
        assert len(defined) == len(set(defined)), f"{path.name} defines a function twice: the first never runs"
    assert not lost
