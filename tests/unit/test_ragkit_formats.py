"""Every format of ragkit by its structure, and hostile files that are refused with the reason, quickly."""

import io
import json
import sys
import time
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.chunking import MOST_CHUNKS, Sizes, chunk
from ragkit.extract import SUFFIXES, Block, Document, UnreadableFile, UnsupportedFormat, extract
from ragkit.extract.apart import extract_apart
from ragkit.extract.paged import joined, without_running

from preheat.cli import ingesting

NAMES = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
QUICK_S = 20.0
"""Generous: what must not happen is work that grows with the square of the input."""


def shape(document):
    return [(block.kind, block.text, block.level) for block in document.blocks]


def docx(body, **parts):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:document {NAMES}><w:body>{body}</w:body></w:document>")
        for name, text in parts.items():
            archive.writestr(f"word/{name}.xml", text)
    return data.getvalue()


def paragraph(text, properties=""):
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


STYLES = f"""<w:styles {NAMES}>
<w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="Mine"><w:name w:val="My own"/><w:basedOn w:val="H1"/></w:style>
<w:style w:styleId="Deep"><w:name w:val="Deep"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr></w:style>
</w:styles>"""
NOTE = '<w:footnote w:id="2"><w:p><w:r><w:t>As of May.</w:t></w:r></w:p></w:footnote>'
NOTES = f"<w:footnotes {NAMES}>{NOTE}</w:footnotes>"


def test_the_command_and_the_stack_read_the_same_files():
    assert ingesting.SUFFIXES == SUFFIXES


def test_word_documents_by_styles_lists_tables_notes_and_links():
    item = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="1"/></w:numPr>'
    body = (
        paragraph("Manual", '<w:pStyle w:val="Title"/>')
        + paragraph("Start", '<w:pStyle w:val="H1"/>')
        + "<w:p><w:r><w:t>See </w:t></w:r><w:hyperlink><w:r><w:t>the site</w:t></w:r></w:hyperlink>"
        + '<w:r><w:t>.</w:t><w:footnoteReference w:id="2"/></w:r>'
        + "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del></w:p>"
        + paragraph("one", item.format(0)) + paragraph("two", item.format(1))
        + "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc>"
        + "</w:tr></w:tbl>"
        + paragraph("Own", '<w:pStyle w:val="Mine"/>') + paragraph("Low", '<w:pStyle w:val="Deep"/>')
        + paragraph("By level", '<w:outlineLvl w:val="1"/>') + paragraph("End.")
    )  # fmt: skip
    document = extract("m.docx", docx(body, styles=STYLES, footnotes=NOTES))
    assert document.title == "Manual"
    assert shape(document) == [
        ("text", "Manual", 0), ("heading", "Start", 1), ("text", "See the site.", 0), ("text", "Note: As of May.", 0),
        ("list", "- one\n  - two", 0), ("table", "| a | b |", 0), ("heading", "Own", 1), ("heading", "Low", 3),
        ("heading", "By level", 2), ("text", "End.", 0),
    ]  # fmt: skip


def test_tables_become_records_that_keep_the_names():
    data = "Name;Age;Town\r\nAnn;31;\"Lo\nndon\"\r\nBob;;Rome\r\n".encode("utf-16")
    assert [one.text for one in extract("p.csv", data).blocks] == [
        "Name: Ann\nAge: 31\nTown: Lo\nndon", "Name: Bob\nTown: Rome"
    ]  # fmt: skip
    assert [one.text for one in extract("p.tsv", b"a, b\tc\n1\t2\n").blocks] == ["a, b: 1\nc: 2"]
    assert [one.text for one in extract("n.csv", b"1,2\n3,4\n").blocks] == ["1 | 2", "3 | 4"]
    rows = "id,colour\n" + "".join(f"{number},shade {number}\n" for number in range(200))
    chunks = chunk(extract("c.csv", rows.encode()), Sizes(60, 80, 0))
    assert len(chunks) > 10
    assert all(one.text.count("id: ") == one.text.count("colour: ") > 1 for one in chunks)
    assert sum(one.text.count("colour: ") for one in chunks) == 200


def test_json_is_a_record_an_element():
    meta = {"tags": ["a", "b"], "n": 1, "none": None}
    nested = {"title": "Stock", "meta": meta, "items": [{"x": 1}, {"x": {"y": [[2]]}}]}
    document = extract("s.json", json.dumps(nested).encode())
    assert document.title == "Stock"
    assert [one.text for one in document.blocks] == [
        "title: Stock\nmeta.tags: a, b\nmeta.n: 1", "items.x: 1", "items.x.y[0]: 2",
    ]  # fmt: skip
    assert [one.text for one in extract("l.json", b'[{"a": 1}, "plain", 3]').blocks] == ["a: 1", "plain", "3"]
    assert [one.text for one in extract("l.jsonl", b'{"a": 1}\n\n{"a": "\xc3\xa9"}\n').blocks] == ["a: 1", "a: é"]
    assert [one.text for one in extract("really-lines.json", b'{"a": 1}\n{"a": 2}\n').blocks] == ["a: 1", "a: 2"]
    with pytest.raises(UnreadableFile, match="line 2 is not readable JSON"):
        extract("b.jsonl", b'{"a": 1}\n{"a": \n')


PYTHON = b'''"""Doc."""

import os

# why
@wraps
def first(a):
    return a


class Big:
    """Says."""

    limit = 3

    def one(self):
        return 1

''' + b"".join(b"    def method_%d(self):\n        return '%s'\n\n" % (n, b"x" * 150) for n in range(20))


def test_python_goes_along_its_definitions():
    chunks = chunk(extract("pkg/tool.py", PYTHON))
    assert chunks[0].context == "pkg/tool.py > first"
    assert "# why\n@wraps\ndef first(a):" in chunks[0].text
    assert chunks[1].context.startswith("pkg/tool.py > Big > ")
    assert chunks[1].text.startswith('class Big:\n    """Says."""')
    assert all(one.context.startswith("pkg/tool.py > Big > ") for one in chunks[1:])
    whole = "\n".join(one.text for one in chunks)
    assert all(whole.count(f"def method_{number}(self)") == 1 for number in range(20))


def test_other_languages_go_along_their_blocks():
    body = "\n".join(f"    call({number});" for number in range(200))
    source = (
        "// head\nimport x;\n\nexport function small(a) {\n  return a;\n}\n\n"
        f"class Large {{\n  go() {{\n{body}\n  }}\n\n  stop(y) {{\n    return y;\n  }}\n}}\n"
    )
    chunks = chunk(extract("a.js", source.encode()))
    assert chunks[0].context == "a.js > small"
    assert {one.context for one in chunks[1:]} == {"a.js > Large > go", "a.js > Large > stop"}
    assert sum(one.text.count("call(") for one in chunks) == 200
    broken = chunk(extract("b.py", b"def f(:\n  pass\n\nclass G:\n  pass\n"))
    assert broken[0].context == "b.py > f, G"
    sql = b"CREATE TABLE birds (id int);\n\nCREATE OR REPLACE VIEW seen AS SELECT 1;\n"
    assert chunk(extract("s.sql", sql))[0].context == "s.sql > birds, seen"
    assert chunk(extract("c.yaml", b"web:\n  image: x\ndb:\n  image: y\n"))[0].context == "c.yaml > web, db"


def test_restructured_text_asciidoc_and_xml():
    rst = (
        b"Title\n=====\n\nIntro :ref:`words <there>`.\n\nSub\n---\n\nLike::\n\n    x = 1\n\n"
        b".. note:: Care.\n\n.. image:: a.png\n"
    )
    assert shape(extract("a.rst", rst)) == [
        ("heading", "Title", 1), ("text", "Intro words.", 0), ("heading", "Sub", 2), ("text", "Like:", 0),
        ("code", "x = 1", 0), ("text", "Care.", 0),
    ]  # fmt: skip
    adoc = b"= Guide\n:toc:\n\nA https://x.example[link].\n\n== Part\n\n----\ncode\n----\n\n* one\n* two\n"
    assert shape(extract("a.adoc", adoc)) == [
        ("heading", "Guide", 1), ("text", "A link.", 0), ("heading", "Part", 2), ("code", "code", 0),
        ("list", "* one\n* two", 0),
    ]  # fmt: skip
    xml = b'<root xmlns="urn:x"><item id="7"><name>A</name> tail</item><item><name>B</name></item></root>'
    assert [one.text for one in extract("a.xml", xml).blocks] == [
        "item.name: A\nitem.id: 7\nitem: tail", "item.name: B"
    ]  # fmt: skip


def test_html_keeps_the_content_and_drops_what_is_around_it():
    page = b"""<!doctype html><html><head><title>Owls</title><meta name="description" content="All on owls."></head>
    <body>    <nav>Menu</nav><header>Site</header><main><h1>Barn owl</h1><dl><dt>Food</dt><dd>voles</dd></dl>
    <p hidden>secret</p><aside>Advert</aside>
    <table><caption>t</caption><tr><td>a<table><tr><td>b</td></tr></table></td></tr></table>
    <pre>x
 y</pre></main><footer>Imprint</footer></body></html>"""
    assert shape(extract("owl.html", page)) == [
        ("text", "All on owls.", 0), ("heading", "Barn owl", 1), ("list", "- Food: voles", 0),
        ("table", "| a |\n| b |", 0), ("code", "x\n y", 0),
    ]  # fmt: skip
    assert extract("owl.txt", page).title == "Owls"


def test_pdf_pages_lose_what_repeats_and_words_are_joined():
    pages = [f"Annual Report 19{n}\nThe body of {chr(65 + n)}\n{chr(65 + n)} goes on\nPage {n} of 9" for n in range(4)]
    assert without_running(pages) == [f"The body of {chr(65 + n)}\n{chr(65 + n)} goes on" for n in range(4)]
    assert without_running(pages[:2]) == pages[:2]
    assert joined("infor-\nmation, Jean-\nLuc") == "information, Jean-\nLuc"


def test_encrypted_and_broken_pdfs_say_why():
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    data = io.BytesIO()
    writer.write(data)
    with pytest.raises(UnreadableFile, match=r"locked\.pdf: the PDF is encrypted and needs a password"):
        extract("locked.pdf", data.getvalue())
    with pytest.raises(UnreadableFile, match="not a readable PDF"):
        extract("cut.pdf", b"%PDF-1.7\n1 0 obj")


def bomb():
    return docx(f"<w:p><w:r><w:t>{'0' * 120_000_000}</w:t></w:r></w:p>")


def test_what_would_grow_without_end_is_refused():
    with pytest.raises(UnreadableFile, match="unpacks to far more"):
        extract("bomb.docx", bomb())
    entities = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    with pytest.raises(UnreadableFile, match="declares entities"):
        extract("laughs.xml", entities)
    body = docx("").replace(b"PK\x05\x06", b"PK\x05\x07")
    with pytest.raises(UnreadableFile, match="not a readable Word document"):
        extract("broken.docx", body)
    spiked = docx("x", styles=f"<!DOCTYPE x [<!ENTITY y 'z'>]><w:styles {NAMES}/>")
    with pytest.raises(UnreadableFile, match="declares entities"):
        extract("spiked.docx", spiked)
    with pytest.raises(UnreadableFile, match="nested too deep"):
        extract("deep.docx", docx("<w:sdt>" * 500 + "</w:sdt>" * 500))
    with pytest.raises(UnreadableFile, match="nested too deep"):
        extract("deep.json", b"[" * 200_000 + b"]" * 200_000)
    with pytest.raises(UnreadableFile, match="nested too deep"):
        extract("deep.xml", b"<a>" * 5_000 + b"</a>" * 5_000)
    with pytest.raises(UnreadableFile, match="passages"):
        records = tuple(Block("record", f"a: {number}") for number in range(MOST_CHUNKS + 1))
        chunk(Document("k", "t", records), Sizes(3, 4, 0))


LONG = 200_000


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("a.md", b"[" * LONG), ("b.md", b"[a](b" * (LONG // 5)), ("c.md", b"**a " * (LONG // 4)),
        ("d.md", b"<!-- " * (LONG // 5)), ("e.md", b"> " * LONG), ("f.txt", b"word " * LONG), ("g.txt", b"x" * LONG),
        ("h.html", b"<div>" * (LONG // 5)), ("i.html", b"<" * LONG), ("j.html", b"<table><tr><td>" * 100_000),
        ("k.csv", b'"' * 100_001), ("l.csv", b"," * LONG), ("m.py", b"x = (" * 100_000), ("n.js", b"{" * LONG),
        ("o.rst", b"`a <" * (LONG // 4)), ("p.rst", b"=\n" * (LONG // 2)), ("q.adoc", b"https://a[" * (LONG // 10)),
        ("r.yaml", b"- " * LONG), ("s.sql", b"create " * (LONG // 7)), ("t.md", b"| a " * (LONG // 4)),
    ],
)  # fmt: skip
def test_long_lines_and_deep_nests_end_soon(key, data):
    began = time.process_time()
    try:
        chunks = chunk(extract(key, data))
        assert all(len(one.text) < 50_000 for one in chunks)
    except UnreadableFile:
        pass
    assert time.process_time() - began < QUICK_S


def test_the_content_decides_and_not_the_name():
    assert extract("really.docx", b"<html><body><p>A page.</p></body></html>").blocks[0].text == "A page."
    assert shape(extract("really-word.txt", docx(paragraph("Word.")))) == [("text", "Word.", 0)]
    with pytest.raises(UnreadableFile, match=r"old\.docx: it is an Office file of the old format"):
        extract("old.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest")
    with pytest.raises(UnreadableFile, match="a picture"):
        extract("photo.md", b"\x89PNG\r\n")
    with pytest.raises(UnreadableFile, match=r"no word/document\.xml"):
        extract("zip.docx", empty_zip())
    with pytest.raises(UnsupportedFormat, match=r"song\.mp3: files ending in \.mp3 are not read"):
        extract("song.mp3", b"ID3")


def empty_zip():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("other.txt", "x")
    return data.getvalue()


def test_encodings():
    assert extract("a.txt", "naïve – ok".encode("cp1252")).blocks[0].text == "naïve – ok"
    assert extract("b.txt", "hello there".encode("utf-16-le")).blocks[0].text == "hello there"
    assert extract("c.txt", b"\xef\xbb\xbfmark").blocks[0].text == "mark"
    assert extract("d.txt", "ü".encode("utf-32")).blocks[0].text == "ü"


def test_a_file_read_apart_gives_the_same_and_takes_nobody_with_it():
    text = b"# Herons\n\nThe grey heron eats eels.\n"
    assert extract_apart("heron.md", text, 300) == extract("heron.md", text)
    for name, data, error in (
        ("song.mp3", b"ID3", UnsupportedFormat), ("broken.json", b"{", UnreadableFile),
        ("deep.json", b"[" * 200_000, UnreadableFile),
    ):  # fmt: skip
        with pytest.raises(error) as here:
            extract(name, data)
        with pytest.raises(error) as there:
            extract_apart(name, data, 300)
        assert str(there.value) == str(here.value)
    with pytest.raises(UnreadableFile, match="reading it takes more than 100 MB of memory"):
        extract_apart("wide.html", b"<a " + b"x=y " * 2_000_000 + b">", 100)
    with pytest.raises(UnreadableFile, match="reading it takes more than 1 s of the processor"):
        extract_apart("open.html", b"<!--" * 400_000, 300, longest_s=1)
