"""The house rules of architecture.md section 2, as tests: who imports what, how classes and files are made."""

import ast
import re
import statistics
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP_LEVEL = ("platform", "fusion_models", "datasets", "sweeps", "reports", "tests")
MODULES = sorted(
    path
    for folder in TOP_LEVEL[:5]
    for path in (ROOT / folder).rglob("*.py")
    if not any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
)
MOST_LINES = 450

# Each room and the rooms it may import; every import of ours within the folders is checked against it.
ANYTHING = "*"
ROOMS: dict[str, tuple[str, ...]] = {
    "platform/core": (),
    "fusion_models": ("fusion_models/blocks", "platform/core"),
    "fusion_models/blocks": ("fusion_models", "fusion_models/kernels", "platform/core"),
    "fusion_models/kernels": ("fusion_models",),
    "fusion_models/backbones": ("platform/core",),
    "datasets/media": ("platform/core",),
    "datasets/corpora": ("datasets/media", "platform/core"),
    "datasets/corpora/affwild2": ("datasets/corpora", "datasets/media"),
    "datasets/corpora/recola": ("datasets/corpora", "datasets/media", "platform/core"),
    "datasets/corpora/manifest": ("datasets/corpora", "datasets/media", "platform/core"),
    "datasets/corpora/embedded": (
        "datasets/corpora",
        "datasets/corpora/recola",
        "datasets/media",
        "datasets/store",
        "platform/core",
    ),
    "datasets/store": ("datasets/corpora", "platform/core"),
    "datasets/batches": ("datasets/store", "platform/core"),
    "platform/workspace": (
        "platform/core",
        "platform/workspace/remote",
        "datasets/corpora/embedded",
        "datasets/store",
    ),
    "platform/workspace/remote": ("platform/core",),
    "sweeps": (
        "platform/core",
        "platform/workspace",
        "datasets/corpora",
        "datasets/corpora/embedded",
        "datasets/store",
        "fusion_models",
    ),
    "platform/modeling": (
        "platform/core",
        "platform/workspace",
        "fusion_models",
        "fusion_models/blocks",
        "fusion_models/backbones",
        "datasets/store",
        "datasets/media",
    ),
    "platform/features": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "fusion_models/backbones",
        "datasets/corpora",
        "datasets/corpora/manifest",
        "datasets/media",
        "datasets/store",
    ),
    "platform/training": (
        "platform/core",
        "platform/modeling",
        "datasets/batches",
        "datasets/store",
        "datasets/corpora",
    ),
    "platform/evaluation": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/training",
        "fusion_models",
        "fusion_models/blocks",
        "datasets/batches",
        "datasets/store",
    ),
    "platform/export": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/features",
        "platform/training",
        "platform/evaluation",
        "fusion_models",
        "datasets/batches",
        "datasets/media",
        "datasets/store",
        "datasets/corpora",
    ),
    "platform/execution": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/training",
        "platform/evaluation",
        "datasets/batches",
        "datasets/store",
    ),
    "platform/scheduling": ("platform/core", "platform/workspace", "platform/execution"),
    "platform/edge": ("platform/edge/tracking",),
    "platform/edge/tracking": (
        "platform/core",
        "platform/workspace",
        "platform/features",
        "platform/export",
        "datasets/store",
        "sweeps",
    ),
    "platform/edge/fleet": (
        "platform/core",
        "platform/workspace",
        "platform/workspace/remote",
        "platform/training",
        "platform/execution",
        "platform/scheduling",
        "sweeps",
    ),
    "platform/edge/terminal": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/features",
        "platform/training",
        "platform/scheduling",
        "fusion_models",
        "fusion_models/backbones",
        "sweeps",
    ),
    "platform/edge/diagnostics": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/edge/fleet",
        "platform/edge/terminal",
        "fusion_models",
        "fusion_models/backbones",
        "datasets/corpora",
        "datasets/store",
    ),
    "platform/edge/launch": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/evaluation",
        "platform/execution",
        "platform/scheduling",
        "platform/edge/fleet",
        "platform/edge/terminal",
        "platform/edge/tracking",
        "datasets/store",
        "sweeps",
    ),
    "platform/edge/search": (
        "platform/core",
        "platform/workspace",
        "platform/scheduling",
        "platform/edge/fleet",
        "platform/edge/tracking",
        "datasets/store",
        "sweeps",
    ),
    "platform/edge/api": (
        "platform/core",
        "platform/workspace",
        "platform/modeling",
        "platform/features",
        "platform/export",
        "platform/scheduling",
        "platform/edge/launch",
        "platform/edge/tracking",
        "datasets/corpora/embedded",
        "datasets/store",
        "sweeps",
        "reports",
        "reports/results",
    ),
    "platform/edge/cli": (ANYTHING,),
    "reports/register": ("platform/core",),
    "reports/stats": ("platform/core",),
    "reports/results": ("reports/stats", "platform/core", "platform/workspace"),
    "reports/tables": ("reports/results", "reports/stats", "platform/core", "sweeps"),
    "reports/figures": (
        "reports/results",
        "reports/stats",
        "platform/core",
        "platform/workspace",
        "datasets/corpora",
        "datasets/media",
        "datasets/store",
    ),
    "reports/doses": (
        "reports/figures",
        "reports/results",
        "reports/stats",
        "reports/tables",
        "platform/core",
        "platform/workspace",
        "datasets/corpora",
        "datasets/corpora/embedded",
        "datasets/store",
    ),
    "reports/page": (
        "reports/doses",
        "reports/figures",
        "reports/tables",
        "reports/results",
        "reports/stats",
        "platform/core",
        "platform/workspace",
        "datasets/store",
    ),
    "reports": (
        "reports/doses",
        "reports/page",
        "reports/tables",
        "reports/results",
        "platform/core",
        "platform/workspace",
    ),
}

# fusion_models/ and its folders are one room: a block knows what a system is, a system is made of blocks.
ONE_ROOM = ("fusion_models", "fusion_models/blocks", "fusion_models/kernels", "fusion_models/backbones")
MOST_FILES = 16
MOST_SYSTEMS = 20
MOST_IMPORTS = 16
MOST_PARAMETERS = 8
MOST_LINES_OF_A_CLASS = 250
SELF = ("self", "cls")
LIGHT = ("platform/core/", "platform/workspace/", "datasets/store/", "datasets/corpora/", "reports/")

# Libraries, and where only they may be imported: a regular expression on the path of a module.
LIBRARIES = [
    (r"datasets/(?!batches/)|sweeps/|reports/|platform/core/", ("torch",)),
    (r"(?!platform/edge/)", ("ray", "mlflow", "optuna")),
    (r"fusion_models/", ("pathlib", "pandas")),
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, full dotted name) of every import, wherever it stands; `from a import b` counts as `a.b`."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are always full"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, bool]:
    """The parameters of a function by name, and whether each has a type."""
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    return {a.arg: a.annotation is not None for a in found if a is not None}


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(package + ".")


def test_modules_were_found():
    assert len(MODULES) > 30
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {"platform", "fusion_models", "datasets", "sweeps"}


def room_of(module: str) -> str:
    """The room of a module or a package of ours, by its dotted name."""
    parts = module.split(".")[1:]
    while parts and not (ROOT / Path(*parts)).is_dir():
        parts.pop()
    return "/".join(parts)


def allowed(room: str) -> set[str]:
    """The rooms that a room may import, itself included."""
    inside = set(ONE_ROOM) if room in ONE_ROOM else {room}
    return inside | set(ROOMS[room])


def test_every_folder_is_a_room_of_the_table():
    folders = {name_of(path.parent) for path in MODULES}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("room", [room for room, rooms in ROOMS.items() if rooms != (ANYTHING,)])
def test_a_room_imports_only_what_the_table_names(room):
    broken = [
        f"{name_of(path)}:{line} imports {imported}"
        for path in MODULES
        if name_of(path.parent) == room
        for line, imported in imports_of(path)
        if within(imported, "crossfold") and imported != "crossfold" and room_of(imported) not in allowed(room)
    ]
    assert not broken, "\n".join(broken)


def test_the_table_of_rooms_has_no_circle_and_no_arrow_that_nothing_uses():
    arrows = {room: set(rooms) - set(ONE_ROOM if room in ONE_ROOM else ()) for room, rooms in ROOMS.items()}
    TopologicalSorter({room: rooms - {ANYTHING} for room, rooms in arrows.items()}).prepare()
    used = {
        room: {
            room_of(imported)
            for path in MODULES
            if name_of(path.parent) == room
            for _, imported in imports_of(path)
            if within(imported, "crossfold")
        }
        for room in ROOMS
    }
    unused = [f"{room} -> {other}" for room, rooms in arrows.items() for other in rooms - {ANYTHING} - used[room]]
    assert not unused, "\n".join(sorted(unused))


def test_only_the_module_that_saved_models_name_lies_directly_in_edge():
    assert {path.name for path in (ROOT / "platform/edge").glob("*.py")} == {"__init__.py", "mlflow_model.py"}


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / room / "__init__.py").exists()])
def test_a_front_door_says_what_the_room_may_import(room):
    docstring = ast.get_docstring(tree_of(ROOT / room / "__init__.py")) or ""
    said = re.search(r"^May import: (.*?)(?:^Public:|\Z)", docstring, re.DOTALL | re.MULTILINE)
    assert said, "one paragraph `May import: ...`"
    named = {name for name in re.findall(r"`([\w/]+)`", said[1]) if name in ROOMS}
    assert named == set(ROOMS[room]) - {ANYTHING}


def test_nothing_imports_edge():
    broken = [
        f"{name_of(path)}:{line} imports {imported}"
        for path in MODULES
        if not name_of(path).startswith("platform/edge/")
        for line, imported in imports_of(path)
        if within(imported, "crossfold.platform.edge")
    ]
    assert not broken, "\n".join(broken)


def graph_of_modules() -> dict[str, set[str]]:
    """The modules of ours that each module imports, both by dotted name, wherever the import stands."""
    names = {("crossfold." + name_of(path)[:-3].replace("/", ".")): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        found = {imported if imported in names else imported.rpartition(".")[0] for _, imported in imports_of(path)}
        graph[name] = {other for other in found if within(other, "crossfold") and other != name}
    return graph


def test_no_circle_of_modules():
    TopologicalSorter(graph_of_modules()).prepare()


@pytest.mark.parametrize(("bound", "packages"), LIBRARIES, ids=lambda value: str(value))
def test_libraries_stay_where_they_belong(bound, packages):
    broken = [
        f"{name_of(path)}:{line} imports {imported}"
        for path in MODULES
        if re.match(bound, name_of(path))
        for line, imported in imports_of(path)
        if any(within(imported, package) for package in packages)
    ]
    assert not broken, "\n".join(broken)


def test_folders_stay_small():
    counts = Counter(name_of(path.parent) for path in MODULES)
    most = {room: MOST_SYSTEMS if room == "fusion_models" else MOST_FILES for room in counts}
    assert {room: count for room, count in counts.items() if count > most[room]} == {}
    assert statistics.median(counts.values()) <= 9
    assert len([path for path in (ROOT / "platform").iterdir() if not path.name.startswith("__")]) <= 11


def test_no_module_knows_more_than_sixteen_others():
    counts = {name.replace(".", "/")[10:] + ".py": len(others) for name, others in graph_of_modules().items()}
    assert counts["platform/execution/run_cell.py"] > 8
    assert {name: count for name, count in counts.items() if count > MOST_IMPORTS} == {}


def test_functions_take_few_parameters():
    """Not counted are `self` and `cls`; commands (`cli/`) have one parameter for each option."""
    counts = {
        f"{name_of(path)}:{node.lineno} {node.name}": len([name for name in parameters(node) if name not in SELF])
        for path in MODULES
        if not name_of(path).startswith("platform/edge/cli/")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert max(counts.values()) > 5
    assert {where: count for where, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_classes_stay_small():
    sizes = {
        f"{name_of(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
    }
    assert max(sizes.values()) > 100
    assert {where: size for where, size in sizes.items() if size > MOST_LINES_OF_A_CLASS} == {}


def test_fusion_models_import_torch_pydantic_and_the_standard_library_only():
    """`backbones/` may also use torchvision and torchaudio."""
    known = {"torch", "pydantic", "lazy_loader", "crossfold"} | set(sys.stdlib_module_names)
    broken = []
    for path in MODULES:
        if not name_of(path).startswith("fusion_models/"):
            continue
        extra = {"torchvision", "torchaudio"} if "backbones" in path.parts else set()
        broken += [
            f"{name_of(path)}:{n} {name}" for n, name in imports_of(path) if name.split(".")[0] not in known | extra
        ]
    assert not broken, "\n".join(broken)


def test_no_init_in_a_top_level_folder():
    assert [name for name in TOP_LEVEL if (ROOT / name / "__init__.py").exists()] == []


def run_here(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_standard_library_wins_from_the_repository_root():
    stdlib = Path(ast.__file__).parent
    found = run_here("-c", "import platform, torch; print(platform.__file__, platform.system())")
    assert Path(found.split()[0]).parent == stdlib
    run_here("-m", "pytest", "--version")


def test_light_modules_leave_heavy_libraries_alone():
    """Reports read results on any machine: no torch, Ray or MLflow comes in by the back door."""
    light = [
        name_of(path)[:-3].replace("/", ".").removesuffix(".__init__")
        for path in MODULES
        if name_of(path).startswith(LIGHT) or path.name == "__init__.py"
    ]
    code = "; ".join(f"import crossfold.{name}" for name in light)
    code += "; import sys; print([m for m in ('torch', 'ray', 'mlflow', 'optuna') if m in sys.modules])"
    assert run_here("-c", code).strip() == "[]"


def test_no_class_inherits_from_a_concrete_class_of_ours():
    """Concrete: any class of ours but protocols, abstract bases, errors, `FrozenModel`, and bases named `_...`.

    A `_Base(FrozenModel)` only lists fields that two configurations share.
    """
    bases: dict[str, tuple[str, list[str]]] = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                names = [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
                bases[node.name] = (f"{name_of(path)}:{node.lineno}", names)

    def is_error(name: str) -> bool:
        if name in bases:
            return any(is_error(base) for base in bases[name][1])
        return name.endswith(("Error", "Exception"))

    def is_open(name: str) -> bool:
        parents = bases[name][1]
        only_fields = name.startswith("_") and set(parents) <= {"FrozenModel", "BaseModel"}
        return name == "FrozenModel" or {"Protocol", "ABC"} & set(parents) or is_error(name) or only_fields

    broken = [
        f"{where} {name} inherits from {base}"
        for name, (where, parents) in bases.items()
        for base in parents
        if base in bases and not is_open(base)
    ]
    assert not broken, "\n".join(broken)


def test_module_size():
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_only_the_command_line_ends_the_process():
    """Apart from it, only a worker whose parent was killed may end itself."""
    orphans = {"platform/core/process_pool.py": {"os._exit"}}
    broken = []
    for path in MODULES:
        if name_of(path) == "platform/edge/cli/app.py":
            continue
        banned = {"sys.exit", "exit", "quit", "os._exit", "os.abort"} - orphans.get(name_of(path), set())
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in banned:
                broken.append(f"{name_of(path)}:{node.lineno}")
            if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
                broken.append(f"{name_of(path)}:{node.lineno}")
    assert not broken, "\n".join(broken)


def test_every_module_and_public_class_says_what_it_is():
    silent = [name_of(path) for path in MODULES if not ast.get_docstring(tree_of(path))]
    silent += [
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert not silent, "\n".join(silent)


def public_functions(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(where, function) of every public function and method; a protocol's docstring speaks for its methods."""
    classes = [node for node in tree_of(path).body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    spoken_for = {node.name for node in classes if "Protocol" in map(ast.unparse, node.bases)}
    inside = [("", tree_of(path).body), *((node.name, node.body) for node in classes if node.name not in spoken_for)]
    return [
        (f"{name_of(path)}:{node.lineno} {owner}.{node.name}".replace(" .", " "), node)
        for owner, body in inside
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]


def test_every_public_function_is_typed_and_says_what_it_does():
    found = [entry for path in MODULES for entry in public_functions(path)]
    assert len(found) > 500
    broken = [f"{where} has no docstring" for where, node in found if not ast.get_docstring(node)]
    for where, node in found:
        bare = [name for name, typed in parameters(node).items() if not typed and name not in SELF]
        broken += [f"{where}: {name} has no type" for name in bare]
        broken += [f"{where} says not what it returns"] if node.returns is None else []
    assert not broken, "\n".join(broken)


def test_shape_suffixes_are_in_the_legend_of_their_file():
    """Every letter of a name such as `x_BLD` is explained at the top of the file (fusion_models only)."""
    broken = []
    for path in (path for path in MODULES if name_of(path).startswith("fusion_models/")):
        legend = re.search(r"Legend:(.*?)(?:\n\n|\Z)", ast.get_docstring(tree_of(path)) or "", re.DOTALL)
        explained = set(re.findall(r"\b[A-Z]\b", legend[1])) if legend else set()
        names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(tree_of(path)) if isinstance(node, ast.arg)}
        suffixes = {name: re.fullmatch(r"[a-z]\w*?_([A-Z][A-Z0-9]*)", name) for name in names}
        broken += [
            f"{name_of(path)}: {letter} of {name}"
            for name, suffix in sorted(suffixes.items())
            if suffix
            for letter in re.findall("[A-Z]", suffix[1])
            if letter not in explained
        ]
    assert not broken, "\n".join(broken)


def test_no_committed_file_names_a_package_registry_or_a_folder_of_one_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    # The brackets keep the patterns from finding themselves.
    places = re.compile(r"(?:files\.)?[p]ypi\.org|[p]ythonhosted\.org|[-]-index-url|/[r]oot/|/[h]ome/\w|/[U]sers/\w")
    broken = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        broken += [f"{name}:{text.count(chr(10), 0, hit.start()) + 1} {hit[0]}" for hit in places.finditer(text)]
    assert not broken, "\n".join(broken)


def test_every_system_cites_its_paper():
    from crossfold.fusion_models.catalogue import find_system, system_names

    for name in system_names():
        system = find_system(name)
        assert system.name == name
        assert system.title
        assert system.equations.strip(), name
        assert system.source.strip(), name
        assert system.bibtex.lstrip().startswith("@"), name
        assert system.bibtex.count("{") == system.bibtex.count("}"), name
        assert system.revision >= 1


def test_every_system_file_cites_equations_of_a_paper():
    """A system file says which paper and equations it is, in its first line."""
    for path in (ROOT / "fusion_models").glob("*.py"):
        if path.stem not in {"catalogue", "system"}:
            assert re.search(r"00[0-4] (eqs?|Tab|sec)|our reading", ast.get_docstring(tree_of(path))), name_of(path)


def test_test_files_have_unique_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
