"""The rules of the house: imports point left, no module bears a library's name, files stay readable, unsafe reading is not there."""

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("skesl_mug", "lexicons", "preprocessing", "pretrain", "finetune")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported_rooms(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_left_only(room: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    front_door = ROOT / "skesl_mug" / "__init__.py"  # looks up, lazily
    for path in set((ROOT / room).rglob("*.py")) - {front_door}:
        strangers = imported_rooms(path.read_text()) - allowed
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


def test_the_import_rule_sees_every_kind_of_import() -> None:
    assert imported_rooms("import finetune.labels as x\nfrom pretrain.encoder import y\ndef f():\n    import lexicons") == {
        "finetune",
        "pretrain",
        "lexicons",
    }


def test_no_module_bears_the_name_of_a_library() -> None:
    """A script puts its folder first on sys.path: a module `datasets.py` beside it would hide the library of that name."""
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    taken -= set(ROOMS)
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            assert path.stem not in taken, path.relative_to(ROOT)


def test_no_file_is_too_long() -> None:
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 400, path.relative_to(ROOT)


def test_nothing_reads_code_from_files() -> None:
    for path in MODULES:
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                call = f"{node.func.value.id}.{node.func.attr}"
                if call == "torch.load":
                    assert any(
                        keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is True for keyword in node.keywords
                    ), path
                assert call not in ("pickle.load", "pickle.loads", "pickle.Unpickler", "pd.read_pickle"), path
                if call == "yaml.load":
                    assert any(k.arg == "Loader" and getattr(k.value, "attr", "") in ("SafeLoader", "BaseLoader") for k in node.keywords), (
                        path
                    )
                if call == "np.load":
                    assert not any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in node.keywords), path


def imported_modules(path: Path) -> set[Path]:
    """The files of the rooms that a file imports at any place, save for types alone."""
    found = set()
    tree = ast.parse(path.read_text())
    for_types = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.module or node in for_types:
            continue
        for alias in node.names:
            inner, outer = (ROOT.joinpath(*name.split(".")) for name in (f"{node.module}.{alias.name}", node.module))
            candidates = (inner.with_suffix(".py"), inner / "__init__.py", outer.with_suffix(".py"), outer / "__init__.py")
            found |= set([file for file in candidates if file.is_file()][:1])
    return found - {path}


def test_no_files_import_each_other_in_a_circle() -> None:
    imports = {path: imported_modules(path) for path in MODULES}
    done: set[Path] = set()

    def visit(path: Path, way: tuple[Path, ...]) -> None:
        assert path not in way, " -> ".join(str(file.relative_to(ROOT)) for file in (*way[way.index(path) :], path))
        if path not in done:
            for other in sorted(imports.get(path, ())):
                visit(other, (*way, path))
            done.add(path)

    for path in MODULES:
        visit(path, ())
    assert imports[ROOT / "preprocessing" / "store.py"] >= {ROOT / "skesl_mug" / "files.py"}
