"""Deployment packages on disk: one directory per archive, named by its sha256; unpacked away from the core's thread."""

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from preheat.execution.watch import IGNORED
from preheat.kernel.stream import FileSlice
from preheat.services.awslambda.domain import Package, invalid

LOCAL_BUCKET = "preheat-local"
MAX_ZIPPED = 52_428_800
MAX_UNZIPPED = 262_144_000
MAX_LINK = 4_096
_CHUNK = 1 << 20
_BAD_ZIP = "Could not unzip uploaded file. Please check your file, then try to upload again."

_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError,
    FileExistsError, NotADirectoryError, IsADirectoryError,
)  # fmt: skip
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class CodeStore:
    """`directory` None: a temporary directory that goes with the object."""

    def __init__(self, directory: Path | None) -> None:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="preheat-code-"))
            weakref.finalize(self, shutil.rmtree, directory, True)
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory

    def store(self, archive: bytes | FileSlice, limit: int = MAX_UNZIPPED) -> Package:
        """Unpack a zip (bytes, or a file) unless it is here already. Raises AwsError for what is no good archive.
        Blocks on files: for a background thread."""
        data = archive if isinstance(archive, bytes) else _read(archive)
        if not data:
            raise invalid("Uploaded file must be a non-empty zip")
        digest = hashlib.sha256(data).hexdigest()
        target, kept = self.directory / digest, self.directory / f"{digest}.zip"
        package = Package(digest, len(data), str(target), str(kept))
        if target.is_dir() and kept.is_file():
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return replace(package, unzipped=sum(member.file_size for member in archive.infolist()))
        work = Path(tempfile.mkdtemp(prefix=".unpack-", dir=self.directory))
        try:
            unzipped = _unpack(data, work / "code", limit)
            (work / "zip").write_bytes(data)
            os.replace(work / "zip", kept)
            if not target.is_dir():
                os.rename(work / "code", target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return replace(package, unzipped=unzipped)

    def in_place(self, directory: str) -> Package:
        """The user's own directory, run where it lies and watched. Raises AwsError."""
        path = Path(directory)
        if not path.is_absolute():
            raise invalid(f"With S3Bucket {LOCAL_BUCKET} the S3Key must be an absolute directory: {directory}")
        if not path.is_dir():
            raise invalid(f"With S3Bucket {LOCAL_BUCKET} the S3Key must be a directory that exists: {directory}")
        digest = hashlib.sha256(f"{LOCAL_BUCKET}:{path}".encode()).hexdigest()
        return Package(digest, 0, str(path), in_place=True)

    def freeze(self, package: Package) -> Package:
        """A copy, as it is now, of code that is run in place; any other package is itself. The same files give the same
        package. Raises AwsError. Blocks on files: for a background thread."""
        if not package.in_place:
            return package
        try:
            return self.store(_pack(Path(package.path)))
        except OSError as error:
            raise invalid(f"The code in {package.path} could not be read: {error.strerror}") from error

    def sweep(self, referenced: set[str]) -> list[Path]:
        """Set aside everything that no version names (`referenced`: sha256); returns what may be removed at leisure."""
        aside = []
        for entry in self.directory.iterdir():
            name = entry.name
            if name.startswith("."):
                aside.append(entry)
            elif name.removesuffix(".zip") not in referenced:
                hidden = self.directory / f".gone-{name}"
                entry.rename(hidden)
                aside.append(hidden)
        return aside


def remove(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fingerprint(directory: Path) -> str:
    """A hex digest that differs when a file of the directory does. Blocks on files."""
    digest = hashlib.sha256()
    for path in _files(directory):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(directory).as_posix()}\0{_mode(path)}\0{content}\n".encode())
    return digest.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    """A directory's files in order, but for what `execution.watch` overlooks. Links are followed; a folder that leads
    back to one that was seen is left out."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name not in IGNORED)
        for name in sorted(files):
            path = Path(folder, name)
            if not name.endswith(".pyc") and path.is_file():
                yield path


def _mode(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) else 0o644


def _pack(directory: Path) -> bytes:
    """A zip of a directory's files; the same files give the same bytes."""
    packed, left = io.BytesIO(), MAX_UNZIPPED
    with zipfile.ZipFile(packed, "w") as archive:
        for path in _files(directory):
            left -= path.stat().st_size
            if left < 0:
                raise invalid(f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes")
            info = zipfile.ZipInfo(path.relative_to(directory).as_posix())
            info.external_attr = _mode(path) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes(), compresslevel=1)
    return packed.getvalue()


def _read(piece: FileSlice) -> bytes:
    with open(piece.path, "rb") as file:
        file.seek(piece.offset)
        return file.read(piece.length)


def _unpack(data: bytes, target: Path, limit: int) -> int:
    """Every member stays below `target`; links may not leave it. `limit` and the result in bytes, unpacked."""
    target.mkdir()
    too_big = invalid(f"Unzipped size must be smaller than {limit} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if not members:
                raise invalid("Uploaded file must be a non-empty zip")
            if sum(member.file_size for member in members) >= limit:
                raise too_big
            left = limit
            for member in members:
                left -= _unpack_member(archive, member, target, left)
                if left <= 0:
                    raise too_big
            _check_links(target)
            return limit - left
    except _UNREADABLE as error:
        raise invalid(_BAD_ZIP) from error
    except OSError as error:
        if error.errno in _BAD_NAMES:
            raise invalid(_BAD_ZIP) from error
        raise


def _check_links(target: Path) -> None:
    """A link may lead somewhere else once a later one stands in its way."""
    home = target.resolve()
    for folder, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise invalid(_BAD_ZIP)


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Bytes written; stops soon after `left` of them."""
    path = _inside(target, member.filename)
    mode = member.external_attr >> 16
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(target.resolve()):
        raise invalid(_BAD_ZIP)
    if path.is_symlink():
        path.unlink()
    if stat.S_ISLNK(mode):
        if member.file_size > MAX_LINK:
            raise invalid(_BAD_ZIP)
        link = archive.read(member).decode()
        if os.path.isabs(link) or not (path.parent / link).resolve().is_relative_to(target.resolve()):
            raise invalid(_BAD_ZIP)
        path.symlink_to(link)
        return len(link)
    written = 0
    with archive.open(member) as source, open(path, "wb") as file:
        while written <= left and (chunk := source.read(_CHUNK)):
            file.write(chunk)
            written += len(chunk)
    path.chmod(0o755 if mode & 0o111 else 0o644)
    return written


def _inside(target: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise invalid(_BAD_ZIP)
    return target.joinpath(*parts.parts)
