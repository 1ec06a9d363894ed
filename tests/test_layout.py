"""The rules that keep the house simple, as tests: each names every file and line that breaks it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reco import __version__
from tests.conftest import ROOT

PACKAGES = ("reco", "render", "train", "serve")
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if "_pb2" not in path.name  # generated
}
# The composition roots start everything, inside their functions.
ROOTS = {
    "reco/__main__.py",
    "reco/campaign_cli.py",
    "reco/cli.py",
    "reco/demo.py",
    "reco/line.py",
    "reco/mail_cli.py",
    "reco/stream_cli.py",
}
# What a package may import of the four and of Ray, besides itself.
ALLOWED = {
    "reco": set(),
    "render": {"reco"},
    "train": {"reco", "ray"},
    "serve": {"reco", "render", "ray"},
}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager"}
HEAVY = {"ray", "torch", "mlflow", "matplotlib"}
# Words by which a constant betrays that the world was asked for it.
READS = ("os.environ", "getenv(", "open(", ".read_text(", "Settings(", "connect(", "connect_redis(")
MAX_LINES = 300  # the aim is 250
MAX_FUNCTION_LINES = 60  # the aim is 40


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported anywhere in `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports() -> Iterator[tuple[str, str, str]]:
    """Place, package and imported name, of every import outside the composition roots."""
    for name, tree in FILES.items():
        if name not in ROOTS:
            for line, module in imported(tree):
                yield f"{name}:{line}", name.partition("/")[0], module


def test_imports_point_one_way():
    guarded = {*PACKAGES, "ray"}
    wrong = [
        (place, module)
        for place, package, module in imports()
        if (top := module.partition(".")[0]) in guarded and top not in {package, *ALLOWED[package]}
    ]

    assert [] == wrong


def test_nobody_builds_on_a_composition_root():
    roots = tuple(root.removesuffix(".py").replace("/", ".") for root in ROOTS)

    assert [] == [(place, module) for place, _, module in imports() if module.startswith(roots)]


@pytest.mark.parametrize("half", ["serve", "train"])
def test_each_half_of_ray_stays_in_its_package(half):
    wrong = [
        (place, module)
        for place, package, module in imports()
        if module.startswith(f"ray.{half}") and package != half
    ]

    assert [] == wrong


def test_ray_train_never_hides_our_own_train():
    wrong = [
        f"{name}:{node.lineno}"
        for name, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "ray"
        if "train" in {alias.asname or alias.name for alias in node.names}
    ]

    assert [] == wrong


def test_product_code_needs_no_test_code():
    assert [] == [place for place, _, module in imports() if module.partition(".")[0] == "tests"]


def test_annotations_are_real_objects():
    """With the future import Ray Serve hands the application builder a plain dict."""
    assert [] == [place for place, _, module in imports() if module == "__future__.annotations"]


def test_files_stay_short():
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in FILES}

    assert {} == {name: count for name, count in lines.items() if count > MAX_LINES}


def test_functions_stay_short():
    functions = {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {} == {name: lines for name, lines in functions.items() if lines > MAX_FUNCTION_LINES}


def test_modules_are_named_for_what_they_hold():
    assert [] == [name for name in FILES if Path(name).stem in BANNED_NAMES]


def test_modules_say_what_they_are():
    assert [] == [name for name, tree in FILES.items() if not ast.get_docstring(tree)]


def happenings(tree: ast.Module) -> Iterator[int]:
    """Lines at the top of a module that do something when it is imported."""
    for node in tree.body:
        acts = isinstance(node, ast.For | ast.While | ast.With | ast.Try) or (
            isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        )
        # Putting commands into their group is what a decorator does, too.
        if acts and ".add_command(" not in ast.unparse(node):
            yield node.lineno
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            source = ast.unparse(node.value)
            if any(word in source for word in READS):
                yield node.lineno


def test_nothing_happens_at_import():
    wrong = [
        f"{name}:{line}"
        for name, tree in FILES.items()
        if not name.endswith("/__main__.py")
        for line in happenings(tree)
    ]

    assert [] == wrong


@pytest.mark.parametrize(
    "source", ["print()", "x = os.environ['A']", "for i in y: pass", "s: S = Settings()"]
)
def test_that_rule_sees_what_happens(source):
    assert [1] == list(happenings(ast.parse(source)))


def test_every_folder_of_code_is_a_package():
    folders = {(ROOT / name).parent for name in FILES}

    assert [] == [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_no_folder_of_tests_or_configs_is_a_package():
    assert [] == list((ROOT / "tests").rglob("__init__.py"))
    assert [] == list((ROOT / "configs").rglob("*.py"))


def test_the_changelog_tells_of_this_version():
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_import_contracts_hold():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import reco.settings, reco.tables, reco.errors, reco.embedded",
        "from reco.cli import main; main(['--help'], standalone_mode=False)",
    ],
)
def test_what_needs_no_ray_does_not_wait_for_it(code):
    code += "; import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert set() == HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "serve.deployments", "serve.gateway", "serve.senders", "serve.runner", "serve.stream",
        "serve.running", "serve.campaign",
    ],
)  # fmt: skip
def test_of_replicas_actors_and_drivers_only_the_scorers_import_torch(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert set() == {"torch", "mlflow"} & set(done.stdout.split())
