"""The ground floor: registries and plugins, run folders, options from Python, peak memory, locks."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from skesl_mug.console import CommandOptions, all_flags, given_flags, make_options, parse_options, to_plain
from skesl_mug.errors import UserError
from skesl_mug.memory import peak_memory_mb
from skesl_mug.registry import Registry, values_of
from skesl_mug.run_folder import RunFolder, differences

ROOT = Path(__file__).resolve().parents[1]


def test_a_registry_resolves_built_in_and_registered_names() -> None:
    registry = Registry("colour", "--colour", {"ordered": "collections:OrderedDict"})

    @registry.register("mine")
    def mine() -> int:
        return 1

    assert registry.names() == ["ordered", "mine"]
    assert registry.get("mine") is mine
    assert registry.get("ordered").__name__ == "OrderedDict"
    assert "mine" in registry
    assert "yours" not in registry
    with pytest.raises(UserError, match="--colour yours: unknown colour; choose from ordered, mine, or load"):
        registry.get("yours")
    registry.register("mine")(mine)  # a module imported twice registers the same thing
    for name in ("ordered", "mine"):
        with pytest.raises(ValueError, match="already registered"):
            registry.register(name)(str)
    with pytest.raises(ValueError, match="letters"):
        registry.register("a name")(str)


def test_a_registered_name_can_take_an_argument() -> None:
    registry = Registry("part", "--part", {"plain": "os:getcwd", "hf": "os.path:join"}, takes={"hf": "NAME_OR_DIR"})
    assert registry.names() == ["plain", "hf:NAME_OR_DIR"]
    assert registry.get("hf:a/b:c")("d") == "a/b:c/d"
    assert "hf:x" in registry
    for name in ("hf", "hf:"):
        with pytest.raises(UserError, match=rf"^--part {name}: needs an argument: hf:NAME_OR_DIR$"):
            registry.check(name)
    with pytest.raises(UserError, match="unknown part; choose from plain, hf:NAME_OR_DIR"):
        registry.check("plain:x")


def test_plugins_are_loaded_by_module_name_from_the_working_folder_and_in_child_processes(tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text("import skesl_mug.registry as r\nr.loaded = getattr(r, 'loaded', 0) + 1\n")
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    code = (
        "import os, subprocess, sys\nimport skesl_mug.registry as r\nr.use_plugins(['my_module']); r.use_plugins(['my_module'])\n"
        "assert r.loaded == 1\n"
        "child = 'import skesl_mug.registry as r; r.load_plugins(); print(r.loaded)'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\n"
        "from skesl_mug.errors import UserError\n"
        "for name in ('broken_module', 'no_such_module'):\n"
        "    try: r.use_plugins([name])\n"
        "    except UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=_path_environment())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "1"
    assert lines[1].startswith("--plugin broken_module: cannot be imported (ZeroDivisionError")
    assert lines[2].startswith(f"--plugin no_such_module: no module named no_such_module in the working folder ({tmp_path}) or among")


def test_plugins_are_loaded_by_path_also_in_child_processes(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "mine" / "first.py").write_text("import second\n")
    (tmp_path / "mine" / "second.py").write_text("print('loaded')\n")
    (tmp_path / "mine" / "json.py").write_text("")
    code = (
        "import os, subprocess, sys\nimport skesl_mug.registry as r\nr.use_plugins(['../mine/first.py', '../mine/second'])\n"
        "child = 'import skesl_mug.registry as r; r.load_plugins()'\n"
        "subprocess.run([sys.executable, '-c', child], check=True, cwd='/')\n"
        "for name in ('../mine/json.py', '../mine/absent'):\n"
        "    try: r.use_plugins([name])\n"
        "    except r.UserError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "here", capture_output=True, text=True, env=_path_environment())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(lines)[-2:] == ["loaded", "loaded"]
    assert "--plugin ../mine/json.py: another module is named json" in done.stdout.replace(f"{tmp_path}/mine", "../mine")
    assert "absent.py: no such file" in done.stdout


def test_files_after_a_plugin_are_positional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("video.mp4", "mine.py", "package/__init__.py", "videos/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    given = ["--plugin", "mine", "mine.py", "package", "video.mp4", "videos", "absent.mp4", "--output", "videos"]
    assert all_flags(given) == ["video.mp4", "videos", "absent.mp4", "--plugin", "mine", "mine.py", "package", "--output", "videos"]
    assert all_flags(["--plugin", "videos", "b"]) == ["--plugin", "videos", "b"]


def _path_environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_repeated_plugin_flag_is_recorded_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first_repeated", "second_repeated"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKESL_MUG_PLUGINS", "")
    options = parse_options(Options, ["--output", "o", "--plugin", "first_repeated", "--plugin", "second_repeated"])
    assert options.plugin == ["first_repeated", "second_repeated"]


def test_values_of_a_list_option() -> None:
    assert values_of("--plugin", ["--plugin", "a", "b", "--seeds", "1", "--plugin=c"]) == ["a", "b", "c"]


@dataclass
class Inner:
    rate: float = 0.1
    size: int = 3


@dataclass(kw_only=True)
class Options(CommandOptions):
    output: Path
    kind: Literal["a", "b"] = "a"
    kinds: list[Literal["a", "b"]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    span: tuple[float, float] | None = None
    flags: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.flags = given_flags()


def test_options_from_python_values() -> None:
    options = make_options(Options, {"output": "here", "inner": {"rate": 0.5}, "kind": None})
    assert options.output == Path("here")
    assert options.inner == Inner(0.5, 3)
    assert options.flags == {"--output", "--inner.rate"}
    assert to_plain(make_options(Options, {"output": "o", "seeds": np.arange(2)}).seeds) == [0, 1]
    for values, message in (
        ({"output": "o", "knd": 1}, "knd: unknown option; did you mean kind?"),
        ({"output": "o", "kind": "c"}, "kind c: choose from a, b"),
        ({"output": "o", "inner": {"rte": 1}}, "inner.rte: unknown option; did you mean rate?"),
        ({"output": "o", "inner": {"size": 1.5}}, "inner.size 1.5: must be a whole number"),
        ({"output": "o", "inner": {"rate": "0.1"}}, "inner.rate '0.1': must be a number"),
        ({"output": "o", "kinds": ["a", "c"]}, "kinds c: choose from a, b"),
        ({"output": "o", "seeds": 3}, "seeds 3: must be a list"),
    ):
        with pytest.raises(UserError) as caught:
            make_options(Options, values)
        assert str(caught.value) == message


def folder(path: Path, **changes: Any) -> RunFolder:
    return RunFolder(path, "a test run", free=frozenset({"workers"}), defaults={"new": 1}, is_ours=lambda e: "rate" in e, **changes)


def test_a_run_folder_resumes_with_the_same_options_alone(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    options = {"rate": 0.1, "workers": 1, "new": 1, "group": {"deep": 2}}
    assert not run.check(options)
    with run.claimed(options, {"data": "abc"}), pytest.raises(UserError, match="another run is writing there"), run.lock():
        pass
    assert yaml.safe_load(run.config.read_text()) == options
    (run.path / "weights").mkdir()
    assert run.check({**options, "workers": 4})
    with pytest.raises(UserError, match=r"with other options \(--rate was 0.1, now 0.2; --group.deep was 2, now 3\)"):
        run.check({**options, "rate": 0.2, "group": {"deep": 3}})
    with pytest.raises(UserError, match="the content of --data has changed"), run.claimed(options, {"data": "other"}):
        pass
    with run.claimed({**options, "rate": 0.2}, {"data": "other"}, overwrite=True):
        assert not (run.path / "weights").exists()


def test_a_run_folder_knows_options_older_than_an_option(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.config.write_text("rate: 0.1\n")
    assert run.check({"rate": 0.1, "new": 1})
    with pytest.raises(UserError, match="--new was 1, now 2"):
        run.check({"rate": 0.1, "new": 2})


@pytest.mark.parametrize("content", ["other: 1\n", "- 1\n", "{", "\x00"])
def test_a_folder_of_something_else_is_never_touched(tmp_path: Path, content: str) -> None:
    run = folder(tmp_path)
    run.config.write_text(content)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"does not hold a test run|is damaged"), run.claimed({"rate": 1}, overwrite=overwrite):
            pass
    assert run.config.read_text() == content
    run.config.rename(tmp_path / "thesis.tex")
    with pytest.raises(UserError, match=r"is not empty \(thesis.tex\)"):
        run.check({"rate": 1}, overwrite=True)


def test_a_run_with_damaged_options_can_be_overwritten(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.config.write_text("{")
    (tmp_path / "identity.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        run.check({"rate": 1})
    with run.claimed({"rate": 1}, overwrite=True):
        assert run.stored() == {"rate": 1, "new": 1}
        assert not (tmp_path / "identity.json").exists()


def test_differences_name_flags_and_values() -> None:
    stored = {"seeds": [1, 2], "on": True, "path": None}
    wanted = {"seeds": [], "on": False, "path": "x"}
    assert differences(stored, wanted) == ["--seeds was 1 2, now empty", "--on was on, now off", "--path was not set, now x"]


def test_peak_memory_grows_with_what_is_allocated() -> None:
    code = (
        "from skesl_mug.memory import peak_memory_mb as p\nbefore = p()\nblock = bytearray(200_000_000)\n"
        "for i in range(0, len(block), 4096): block[i] = 1\nprint(p() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_path_environment())
    assert 150 < float(done.stdout) < 260
    assert peak_memory_mb() > 10


def test_positional_arguments_are_not_values_of_the_config_files_lists(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("plugin: [json]\n")
    for arguments in (["video.mp4", "--config", str(config)], ["--config", str(config), "video.mp4"]):
        flags = all_flags(arguments)
        assert values_of("--plugin", flags) == ["json"]
        assert "video.mp4" in flags


def test_a_plugin_that_fails_is_not_loaded_again_in_worker_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKESL_MUG_PLUGINS", "")
    place = tmp_path / "fixed_later.py"
    place.write_text("1 / 0")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        make_options(Options, {"output": "o", "plugin": ["fixed_later"]})
    assert os.environ["SKESL_MUG_PLUGINS"] == ""
    place.write_text("worked = True  # and another length than before")
    make_options(Options, {"output": "o", "plugin": ["fixed_later"]})
    assert sys.modules["fixed_later"].worked


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plugin": "mine.py"}, "plugin mine.py: must be a list"),
        ({"config": "x.yaml"}, "config: is for the command line; pass the options as arguments"),
        ({"inner": 5}, "inner 5: must be a dict of options"),
        ({"output": 5}, "output 5: must be a text or a path"),
        ({"span": "a"}, "span 'a': must be 2 values"),
        ({"span": (1.0,)}, "span (1.0,): must be 2 values"),
    ],
)
def test_values_of_a_wrong_type_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_options(Options, {"output": "o", **values})
    assert str(caught.value) == message


def test_overwrite_needs_more_than_a_damaged_config_and_results(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.config.write_text("rate: !custom 1\n")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError):
        run.check({"rate": 1}, overwrite=True)
