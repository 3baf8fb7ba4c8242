"""The documentation matches the code: commands parse, flags and names exist, links resolve, generated pages are up to date."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from tutorial import TUTORIAL, commands_of, tutorial_commands

import skesl_mug
from finetune.options_reference import reference
from skesl_mug.commands import COMMANDS
from skesl_mug.console import parse_options

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [page for page in PAGES if page.name not in ("options.md", "performance.md", "reliability.md")]
"""Pages without the output of commands."""
PARSED = [page for page in WRITTEN if page.name != "extending.md"]
"""Its commands need the plugins of their examples; tests of the extension points run them."""
ELSEWHERE = {
    "--array",
    "--cpus-per-task",
    "--head",
    "--port",
    "--address",
    "--nproc-per-node",
    "--help",
    "--help-all",
    "--no-deps",
    "--lexicons",
}
"""Flags of other programs, and those that the options page does not list."""
EVERYWHERE = {"--config", "--print-config", "--debug", "--plugin"}


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def options_of(name: str) -> type | None:
    """The options of a command, None where they depend on another argument."""
    module, _, entry = COMMANDS[name][0].partition(":")
    found = {"pretrain": ("pretrain.options", "PretrainOptions")}.get(name, (module, entry))
    options = getattr(import_module(found[0]), found[1])
    return options if isinstance(options, type) else None


def test_the_tutorial_has_ten_commands() -> None:
    assert len(tutorial_commands()) == 10
    assert [int(step) for step in re.findall(r"^\*\*(\d+)\.", TUTORIAL, flags=re.MULTILINE)] == list(range(1, 11))


@pytest.mark.parametrize(("page", "command"), [(page.name, command) for page in PARSED for command in commands_of(read(page))])
def test_commands_parse(page: str, command: list[str]) -> None:
    assert command[0] in COMMANDS, command
    options = options_of(command[0])
    if options is not None and "--config" not in command:
        alias = {"--train-lm": "--no-freeze-lm"}
        parse_options(options, [alias.get(word, word.replace("$SLURM_ARRAY_TASK_ID", "1")) for word in command[1:]])


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "README.md"], ids=lambda page: page.name)
def test_flags_exist(page: Path) -> None:
    known = set(re.findall(r"`(--[\w.-]+)`", reference())) | EVERYWHERE | ELSEWHERE
    code = [*re.findall(r"`([^`\n]+)`", read(page)), *(" ".join(command) for command in commands_of(read(page)))]
    for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", "\n".join(line for line in code if not line.startswith(("pip ", "git ")))):
        flag = flag.rstrip(".")
        options = {flag, flag.replace("--no-", "--", 1)}
        assert options & known or any(name.startswith(f"{flag}.") for name in known), f"{page.name}: {flag}"


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    api = set(re.findall(r"^::: ([\w.]+)$", read(page), flags=re.MULTILINE))
    return api | {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", read(page)):
        if not target.startswith("http"):
            place = page.parent / target if target else page
            assert place.exists(), target
            assert not anchor or anchor in anchors_of(place), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [*WRITTEN, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    if page.name != "comparison.md":  # names files of other projects
        for path in re.findall(r"`((?:[\w.]+/)+\w+\.(?:py|yaml|md|toml|sh))`", read(page)):
            assert (ROOT / path).is_file(), path


def test_files_that_make_names_exist() -> None:
    named = re.findall(r"\b(?:preprocessing|pretrain|finetune|docs|tests|benchmarks)/[\w/]+\.\w+", read(ROOT / "Makefile"))
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_sites_navigation() -> None:
    nav = read(ROOT / "mkdocs.yml").split("\nnav:")[1]
    assert set(re.findall(r"[\w/]+\.md", nav)) == {page.name for page in PAGES}


def test_the_api_page_has_every_public_name() -> None:
    names = re.findall(r"^::: skesl_mug\.(\w+)$", read(ROOT / "docs" / "api.md"), flags=re.MULTILINE)
    assert sorted(names) == sorted(skesl_mug.__all__)


def test_the_reference_names_every_option() -> None:
    stored = read(ROOT / "docs" / "options.md")
    assert stored == reference(), "run `python -m finetune.options_reference --output docs/options.md`"
    for flag in (
        "--asr.model",
        "--model.fusion",
        "--segments",
        "--max-minutes",
        "--objective.masks",
        "`VIDEOS`",
        "`--neighbours`",
        "`--trials`",
    ):
        assert flag in stored
    assert "<speaker>" not in stored, "a browser reads it as a tag"


def test_picture_and_table_of_files_are_drawn_from_this_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import draw_architecture

    page = read(draw_architecture.PAGE)
    assert read(draw_architecture.PICTURE) == draw_architecture.draw(), "run `python docs/draw_architecture.py`"
    assert page == draw_architecture.page_with_files(page), "run `python docs/draw_architecture.py`"


def test_results_are_rounded_to_what_the_seeds_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.results import round_table

    table = ["| | MAE | Acc2 | Δ |", "|---|---|---|---|", "| model | 0.745 ± 0.084 | 78.44 / 81.05 ± 3.19 / 2.90 | |"]
    table.append("| other | 0.748 ± 0.060 | 77.55 / 80.34 ± 3.54 / 3.23 | −0.003 (t = −0.4, p = 0.701) |")
    assert round_table(table)[2:] == [
        "| model | 0.75 ± 0.08 | 78.4 / 81.1 ± 3.2 / 2.9 | |",
        "| other | 0.75 ± 0.06 | 77.6 / 80.3 ± 3.5 / 3.2 | 0.00 (t = −0.4, p = 0.7) |",
    ]
    small = ["| | MAE |", "|---|---|", "| model | 0.372 ± 0.004 |"]
    assert round_table(small) == small, "a spread below .01 supports three decimals"


def test_results_name_the_version_and_what_is_reproducible() -> None:
    page = read(ROOT / "docs" / "results.md")
    assert "## What is reproducible" in page
    for block in re.findall(r"begin -->(.*?)<!--", page, flags=re.DOTALL):
        assert re.search(r"^Data: .*Version \w+", block, flags=re.MULTILINE)
        spread = re.findall(r"± (0\.\d+)", block)[0]
        assert len(spread) == 4 or float(spread) < 0.01, "more digits than the seeds support"
