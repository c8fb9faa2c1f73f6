"""PDF by its pages, where pypdf is installed."""

import io
import re
from collections import Counter

from ragkit.extract.documents import Block, Document, UnreadableFile, UnsupportedFormat, made, paragraphs, unix
from ragkit.extract.prose import unwrapped

MOST_PAGES = 5_000
EDGE = 2
"""Lines at the top and at the bottom of a page that may be a running header or footer."""
REPEATED_ON = 3
REPEATED_SHARE = 0.5
_NUMBER = re.compile(r"\d+|\b[ivxlc]{1,7}\b")


def pdf(key: str, data: bytes) -> Document:
    """Raises UnsupportedFormat without pypdf, UnreadableFile for a broken or encrypted file, or one of pictures."""
    try:
        import pypdf
    except ImportError:
        raise UnsupportedFormat(f"{key}: reading PDF needs the package pypdf") from None
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableFile(f"{key}: the PDF is encrypted and needs a password")
        if len(reader.pages) > MOST_PAGES:
            raise UnreadableFile(f"{key}: more than {MOST_PAGES} pages; part it into several files")
        pages = [unix(page.extract_text()) for page in reader.pages]
        title = str((reader.metadata or {}).get("/Title") or "").strip()
    except UnreadableFile:
        raise
    except pypdf.errors.DependencyError as error:
        raise UnreadableFile(f"{key}: the PDF is encrypted in a way that is not read: {error}") from error
    except Exception as error:
        raise UnreadableFile(f"{key}: not a readable PDF: {error}") from error
    if pages and not any(page.strip() for page in pages) and b"/Image" in data:
        raise UnreadableFile(f"{key}: the PDF has pictures of text only; recognise the text first")
    blocks = [
        Block("text", unwrapped(joined(part.strip())), page=number)
        for number, text in enumerate(without_running(pages), 1)
        for part in paragraphs(text)
    ]
    return made(key, title, blocks)


def joined(text: str) -> str:
    """With words that were parted at the end of a line put together."""
    return re.sub(r"(?<=[a-zà-ÿ])[-\u00ad\u2010]\n[ \t]*(?=[a-zà-ÿ])", "", text)


def without_running(pages: list[str]) -> list[str]:
    """Without the lines that stand at the edges of at least half of the pages, but for their numbers."""
    texts = [page.split("\n") for page in pages]
    seen: Counter[str] = Counter()
    for lines in texts:
        seen.update({_shape(lines[at]) for at in _edges(lines)})
    least = max(REPEATED_ON, REPEATED_SHARE * len(pages))
    running = {shape for shape, count in seen.items() if count >= least}
    kept = []
    for lines in texts:
        dropped = {at for at in _edges(lines) if _shape(lines[at]) in running}
        kept.append("\n".join(line for at, line in enumerate(lines) if at not in dropped))
    return kept


def _edges(lines: list[str]) -> set[int]:
    filled = [at for at, line in enumerate(lines) if line.strip()]
    return {*filled[:EDGE], *filled[-EDGE:]}


def _shape(line: str) -> str:
    return _NUMBER.sub("0", " ".join(line.lower().split()))
