"""Which interpreter runs a runtime: found, asked for its version, chosen, and said when it is another one."""

import sys
from pathlib import Path

from preheat.execution.workers.interpreters import Interpreters

OWN = f"python3.{sys.version_info[1]}"
OTHER = 10 if sys.version_info[1] != 10 else 12


def install(path: Path, answer: str) -> Path:
    """A program that answers the question for its version, whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' {answer}\n")
    path.chmod(0o755)
    return path


def python(path: Path, minor: int) -> Path:
    return install(path, f"3 {minor} {path}")


def node(path: Path, major: int) -> Path:
    return install(path, f"{major} 1 {path}")


def search(home: Path, *configured: Path, path: str = "/nowhere") -> Interpreters:
    return Interpreters(configured, {"HOME": str(home), "PATH": path})


def test_our_own_version_is_the_one_that_runs_preheat(tmp_path):
    interpreters = search(tmp_path)
    chosen = interpreters.choose(OWN)
    assert chosen.path is None and chosen.exact and interpreters.remark(OWN) is None


def test_the_version_managers_folders_are_searched(tmp_path):
    places = (".pyenv/versions/3.{0}.4/bin/python3.{0}", ".local/share/uv/python/cpython-3.{0}.2-x/bin/python3.{0}")
    for place in places:
        home = tmp_path / place[:5].strip("./")
        found = python(home / place.format(OTHER), OTHER)
        chosen = search(home).choose(f"python3.{OTHER}")
        assert chosen.path == str(found) and chosen.exact


def test_a_directory_that_is_named_comes_first_and_the_highest_patch_wins(tmp_path):
    python(tmp_path / f".pyenv/versions/3.{OTHER}.1/bin/python3.{OTHER}", OTHER)
    newer = python(tmp_path / f".pyenv/versions/3.{OTHER}.20/bin/python3.{OTHER}", OTHER)
    assert search(tmp_path).choose(f"python3.{OTHER}").path == str(newer)
    named = python(tmp_path / f"mine/bin/python3.{OTHER}", OTHER)
    assert search(tmp_path, tmp_path / "mine").choose(f"python3.{OTHER}").path == str(named)


def test_a_program_that_is_not_what_its_name_says_is_passed_over(tmp_path):
    python(tmp_path / f"path/python3.{OTHER}", OTHER + 20)
    (tmp_path / "broken").mkdir()
    (tmp_path / f"broken/python3.{OTHER}").write_text("no program")
    right = python(tmp_path / f".pyenv/versions/3.{OTHER}.1/bin/python3.{OTHER}", OTHER)
    path = f"{tmp_path}/path:{tmp_path}/broken:{tmp_path}/shims"
    python(tmp_path / f"shims/python3.{OTHER}", OTHER)
    assert search(tmp_path, path=path).choose(f"python3.{OTHER}").path == str(right)


def test_the_nearest_version_runs_and_the_remark_names_both(tmp_path):
    python(tmp_path / "mine/python3.15", 15)
    interpreters = search(tmp_path, tmp_path / "mine")
    chosen = interpreters.choose("python3.19")
    assert chosen.version == (3, 15) and not chosen.exact
    remark = interpreters.remark("python3.19")
    assert "python3.19 is not installed here" in remark and "python3.15" in remark and "--interpreters" in remark


def test_node_is_found_by_its_major_version(tmp_path):
    twenty = node(tmp_path / ".nvm/versions/node/v90.4.0/bin/node", 90)
    other = node(tmp_path / ".volta/tools/image/node/92.1.0/bin/node", 92)
    interpreters = search(tmp_path)
    assert interpreters.choose("nodejs90.x").path == str(twenty) and interpreters.remark("nodejs90.x") is None
    assert interpreters.choose("nodejs92.x").path == str(other)
    assert interpreters.choose("nodejs94.x").path == str(other)
    assert "Node.js 92" in interpreters.remark("nodejs94.x")


def test_a_python_too_old_for_boto3_says_how_to_get_one(tmp_path):
    place = tmp_path / "mine/python3.9"
    old = install(place, f"3 9 {place}; exit $(echo \"$*\" | grep -c find_spec)")
    remark = search(tmp_path, tmp_path / "mine").remark("python3.9")
    assert f"{old} -m pip install boto3" in remark


def test_other_runtimes_are_not_remarked_on(tmp_path):
    assert search(tmp_path).remark("provided.al2023") is None
