"""What is not Python and lies in the package is installed with it."""

import tomllib
from pathlib import Path, PurePath

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "preheat"


def test_every_file_of_the_package_is_package_data():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["preheat"]
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*") if path.is_file()]
    others = [path for path in files if path.suffix not in (".py", ".pyc")]
    assert others
    left_out = [str(path) for path in others if not any(PurePath(path).match(pattern) for pattern in patterns)]
    assert left_out == []
