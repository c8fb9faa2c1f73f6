"""Relative links in documents lead to files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_relative_links():
    broken = []
    documents = [ROOT / "README.md"]
    for folder in ("docs", "stacks", "bench", "src"):
        documents += ROOT.glob(f"{folder}/**/*.md")
    for document in documents:
        for target in LINK.findall(document.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (document.parent / target).exists():
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert not broken, "\n".join(broken)
