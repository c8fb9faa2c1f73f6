"""One suite over every blob store: files and memory."""

import os

import pytest

from preheat.kernel.stream import FileSlice
from preheat.store.blobs import FileBlobs, MemoryBlobs, sweep


@pytest.fixture(params=["file", "file-fsync", "memory"])
def blobs(request, tmp_path):
    if request.param == "memory":
        return MemoryBlobs()
    return FileBlobs(tmp_path / "blobs", fsync=request.param.endswith("fsync"))


def content(answer):
    if isinstance(answer, FileSlice):
        with open(answer.path, "rb") as file:
            file.seek(answer.offset)
            return file.read(answer.length)
    return bytes(answer)


def test_what_is_written_is_read(blobs):
    body = os.urandom(3_000_000)
    size = blobs.write("ab01", [body[:10], memoryview(body)[10:2_000_000], bytearray(body[2_000_000:])])
    assert size == len(body)
    assert b"".join(blobs.chunks("ab01", 0, size)) == body
    assert b"".join(blobs.chunks("ab01", 999_999, 1_500_000)) == body[999_999:2_499_999]
    assert content(blobs.slice("ab01", 0, size)) == body
    assert content(blobs.slice("ab01", 5, 7)) == body[5:12]


def test_an_empty_blob(blobs):
    assert blobs.write("ab02", []) == 0
    assert list(blobs.chunks("ab02", 0, 0)) == []
    assert content(blobs.slice("ab02", 0, 0)) == b""


def test_pieces_of_others(blobs):
    blobs.write("aa", [b"0123456789"])
    blobs.write("bb", [b"abcdef"])
    assert blobs.copy("cc", [("bb", 0, 6), ("aa", 2, 3), ("bb", 5, 1)]) == 10
    assert content(blobs.slice("cc", 0, 10)) == b"abcdef234f"


def test_removing_and_names(blobs):
    for name in ("aa1", "ab2", "aa3"):
        blobs.write(name, [b"x"])
    assert list(blobs.names()) == ["aa1", "aa3", "ab2"]
    blobs.remove("aa1")
    blobs.remove("aa1")
    assert list(blobs.names()) == ["aa3", "ab2"]
    with pytest.raises(FileNotFoundError):
        list(blobs.chunks("aa1", 0, 1))


def test_a_failing_source_leaves_nothing(blobs):
    def source():
        yield b"first"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        blobs.write("ab03", source())
    assert list(blobs.names()) == []


def test_a_blob_that_is_too_short_is_an_error(blobs):
    blobs.write("ab04", [b"12345"])
    with pytest.raises(OSError, match="shorter"):
        list(blobs.chunks("ab04", 0, 6))


def test_the_sweep_keeps_what_is_named(blobs):
    for name in ("aa1", "ab2", "ac3"):
        blobs.write(name, [b"x"])
    assert sweep(blobs, lambda name: name == "ab2") == 2
    assert list(blobs.names()) == ["ab2"]


def test_unfinished_files_are_swept(tmp_path):
    blobs = FileBlobs(tmp_path)
    blobs.write("ab01", [b"x"])
    (tmp_path / "ab" / "ab99.part").write_bytes(b"half")
    assert sweep(blobs, lambda name: name == "ab01") == 1
    assert [entry.name for entry in (tmp_path / "ab").iterdir()] == ["ab01"]
