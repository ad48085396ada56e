"""Archives of every kind come out whole, and harmful or damaged ones are refused with nothing written outside."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile

import pytest

from srp_exp.datasets.prepare import archives
from srp_exp.datasets.prepare.archives import extract, read_archive, read_nested_tar

FILES = {"images/a.jpg": b"A" * 700, "images/deep/b.jpg": b"", "lists.txt": b"1 a\n2 b\n" * 300}


def header(name, kind=tarfile.REGTYPE, size=0, link=""):
    member = tarfile.TarInfo(name)
    member.type, member.size, member.linkname = kind, size, link
    return member


def tar_bytes(*members):
    """A tar of (header, content) pairs; the headers are taken as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if content else None)
    return buffer.getvalue()


def good_tar(files):
    return tar_bytes(*((header(f"./{name}", size=len(content)), content) for name, content in files.items()))


def zip_bytes(*members):
    """A zip of (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_special(name, mode, content=b""):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return zip_bytes((info, content))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PACKED = {
    "tar": good_tar(FILES),
    "tar.gz": gzip.compress(good_tar(FILES)),
    "tar.bz2": bz2.compress(good_tar(FILES)),
    "tar.xz": lzma.compress(good_tar(FILES)),
    "zip": zip_bytes(("images/", b""), *FILES.items()),
}


def test_a_good_archive_comes_out_whole(tmp_path):
    path = tmp_path / "archive"
    for kind, packed in PACKED.items():
        path.write_bytes(packed)
        done = []
        extract([path], tmp_path / kind, done.append)
        assert contents(tmp_path / kind) == FILES, kind
        assert sum(done) == sum(map(len, FILES.values()))


def negative_size():
    """A header whose size is -512 in base 256: a reader that follows it never ends."""
    block = bytearray(header("a").tobuf(tarfile.GNU_FORMAT)[:512])
    block[124:136] = b"\xff" * 10 + struct.pack(">h", -512)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def sparse():
    """GNU's sparse format 0.0: 4 GiB of zeros of which nothing is stored."""
    member = header("zeros")
    member.pax_headers = {"GNU.sparse.size": str(1 << 32), "GNU.sparse.numblocks": "0"}
    return tar_bytes((member, b""))


def long_header():
    """A comment of 4 MiB, in a few kB: readers take a header into memory whole."""
    member = header("a")
    member.pax_headers = {"comment": "x" * (4 << 20)}
    return gzip.compress(tar_bytes((member, b"")))


def overlapping_zip():
    """Thirty names for the same compressed megabyte, as in Fifield's bomb."""
    once = zip_bytes(("0", bytes(1 << 20)))
    start = struct.unpack("<L", once[-6:-2])[0]
    local, directory = once[:start], once[start:-22]
    entries = b"".join(directory[:-1] + bytes([65 + number]) for number in range(30))
    return local + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 30, 30, len(entries), start, 0)


MALICIOUS = {
    "traversal": (tar_bytes((header("images/../../evil", size=4), b"evil")), "outside the destination"),
    "symbolic link": (tar_bytes((header("out", tarfile.SYMTYPE, link="/tmp"), b"")), "'out' is a link"),
    "file through a link": (
        tar_bytes((header("out", tarfile.SYMTYPE, link=".."), b""), (header("out/evil", size=4), b"evil")),
        "'out' is a link",
    ),
    "hard link": (
        tar_bytes((header("passwd", tarfile.LNKTYPE, link="/etc/passwd"), b"")),
        "'passwd' is a link",
    ),
    "character device": (tar_bytes((header("null", tarfile.CHRTYPE), b"")), "a link or a device"),
    "block device": (tar_bytes((header("disk", tarfile.BLKTYPE), b"")), "a link or a device"),
    "pipe": (tar_bytes((header("fifo", tarfile.FIFOTYPE), b"")), "a link or a device"),
    "sparse file": (sparse(), "brings it to 4,294,967,296"),
    "negative size": (negative_size(), "of -512 bytes"),
    "tar bomb": (gzip.compress(good_tar({"zeros": bytes(12 << 20)})), "brings it to 12,582,912; taken are 1,048,576"),
    "bomb after the end": (gzip.compress(good_tar({}) + bytes(12 << 20)), "bytes follow the end of the tar"),
    "bomb of a header": (long_header(), "a header of it has 4,"),
    "bomb of many files": (gzip.compress(good_tar({str(n): b"" for n in range(60)})), "holds more than 50 files"),
    "zip traversal": (zip_bytes(("../evil", b"evil")), "outside the destination"),
    "zip link": (zip_special("out", stat.S_IFLNK | 0o777, b"/tmp"), "is a link"),
    "zip device": (zip_special("null", stat.S_IFCHR | 0o666), "a link or a device"),
    "zip bomb": (zip_bytes(("zeros", bytes(12 << 20))), "brings it to 12,582,912; taken are 1,048,576"),
    "zip of overlapping files": (overlapping_zip(), "damaged"),
    "file twice": (tar_bytes(*[(header("a", size=1), b"x")] * 2), "is in it twice"),
}


@pytest.fixture
def tight(monkeypatch):
    """Limits that a small archive reaches."""
    monkeypatch.setattr(archives, "MOST_FILES", 50)
    monkeypatch.setattr(archives, "SMALL", 1 << 20)


def test_a_malicious_archive_is_refused_with_nothing_written_outside(tmp_path, tight):
    for number, (content, message) in enumerate(MALICIOUS.values()):
        place = tmp_path / f"at/{number}"
        path, out = place / "archive", place / "deep" / "out"
        place.mkdir(parents=True)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            for entry in read_archive(path, out):
                entry.write(out / entry.name)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        outside = {str(p.relative_to(place)) for p in place.rglob("*") if out not in p.parents}
        assert outside <= {"archive", "deep", "deep/out"}
        assert not any(p.is_symlink() or not (p.is_file() or p.is_dir()) for p in place.rglob("*"))
        with pytest.raises(ValueError, match=message):  # without reading a file's content as well
            list(read_archive(path, out))
    assert [path.name for path in tmp_path.iterdir()] == ["at"]
    assert len(list((tmp_path / "at").iterdir())) == len(MALICIOUS)


HARMLESS = {
    "absolute path": tar_bytes((header("/tmp/evil", size=4), b"evil")),
    "zip absolute path": zip_bytes(("/tmp/evil", b"evil")),
    "zip drive": zip_bytes(("C:/evil", b"evil")),
    "zip backslash": zip_bytes((r"..\evil", b"evil")),
}


def test_an_odd_name_lies_in_the_folder(tmp_path):
    for kind, content in HARMLESS.items():
        place = tmp_path / kind
        place.mkdir()
        (place / "archive").write_bytes(content)
        extract([place / "archive"], place / "deep" / "out", lambda _: None)
        (file,) = (path for path in place.rglob("*evil") if path.is_file())
        assert file.is_relative_to(place / "deep" / "out") and file.read_bytes() == b"evil"


def test_a_file_that_is_a_folder_too_is_refused(tmp_path):
    for number, names in enumerate((("a", "a/b"), ("a/b", "a"))):
        (tmp_path / "archive").write_bytes(good_tar(dict.fromkeys(names, b"x")))
        with pytest.raises(ValueError, match="archive: refused, since .* is a file"):
            extract([tmp_path / "archive"], tmp_path / f"out{number}", lambda _: None)


def test_a_link_that_exists_leads_nowhere(tmp_path):
    (tmp_path / "archive").write_bytes(good_tar({"images/a.jpg": b"A"}))
    (tmp_path / "elsewhere").mkdir()
    for number, link in enumerate(("images", "images/a.jpg")):
        out = tmp_path / f"out{number}"
        (out / link).parent.mkdir(parents=True)
        (out / link).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="images/a.jpg.*elsewhere.*', which is outside the destination"):
            extract([tmp_path / "archive"], out, lambda _: None)
    assert contents(tmp_path / "elsewhere") == {}


def test_permissions_of_the_archive_are_ignored(tmp_path):
    member = header("tool", size=1)
    member.mode, member.uid = 0o6777, 0
    (tmp_path / "archive").write_bytes(tar_bytes((member, b"x")))
    extract([tmp_path / "archive"], tmp_path / "out", lambda _: None)
    assert (tmp_path / "out/tool").stat().st_mode & 0o6111 == 0


def broken(content, position):
    changed = bytearray(content)
    changed[position] ^= 0xFF
    return bytes(changed)


GOOD = good_tar({"a": b"x" * 600, "b": b"y" * 600})
DAMAGED = {
    "no archive": b"hello" * 300,
    "empty file": b"",
    "broken second header": broken(GOOD, 1536 + 3),
    "cut in a file": GOOD[:1000],
    "cut in a header": GOOD[:1700],
    "cut between files": GOOD[:1536],
    "cut gzip": gzip.compress(os.urandom(3000) + GOOD)[:-2000],
    "gzip without its end": gzip.compress(GOOD)[:-6],
    "gzip of another sum": broken(gzip.compress(GOOD), -6),
    "cut xz": lzma.compress(GOOD)[:-40],
    "cut zip": zip_bytes(("a", b"x" * 600))[:-10],
    "zip of another sum": zip_special("a", 0, b"x" * 600).replace(b"x" * 600, b"x" * 599 + b"y"),
}


def test_a_damaged_archive_is_named_in_one_line(tmp_path):
    path = tmp_path / "archive"
    for number, damaged in enumerate(DAMAGED.values()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"archive.*damaged, or no archive \(.*\); fetch it again") as caught:
            extract([path], tmp_path / f"out{number}", lambda _: None)
        assert "\n" not in str(caught.value)


def test_a_missing_archive_is_named(tmp_path):
    for name in ("none.tar", "none.mat"):
        with pytest.raises(FileNotFoundError, match=rf"archive=.*{name}: there is no such file; give the path"):
            extract([tmp_path / name], tmp_path / "out", lambda _: None)


def test_annotations_are_taken_as_they_are(tmp_path):
    (tmp_path / "annos.mat").write_bytes(b"MATLAB")
    extract([tmp_path / "annos.mat"], tmp_path / "out", lambda _: None)
    assert contents(tmp_path / "out") == {"annos.mat": b"MATLAB"}


def test_a_tar_in_a_tar_is_read_and_its_evil_refused(tmp_path):
    inner, evil = good_tar({"a.JPEG": b"A", "b.JPEG": b"B" * 1000}), tar_bytes((header("../evil", size=1), b"x"))
    (tmp_path / "archive").write_bytes(good_tar({"n01.tar": inner, "n02.tar": inner, "n03.tar": evil}))
    found = []
    with pytest.raises(ValueError, match=r"archive: n03.tar: refused .'../evil' would"):
        for outer in read_archive(tmp_path / "archive", tmp_path / "out"):
            found += [
                (outer.name, entry.name, entry.content.read()) for entry in read_nested_tar(outer, tmp_path / "out")
            ]
    files = [("a.JPEG", b"A"), ("b.JPEG", b"B" * 1000)]
    assert found == [(outer, *file) for outer in ("n01.tar", "n02.tar") for file in files]


def test_an_interrupted_extraction_goes_on_and_keeps_what_is_whole(tmp_path):
    path, out = tmp_path / "archive", tmp_path / "out"
    path.write_bytes(gzip.compress(good_tar(FILES)))

    def interrupt(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract([path], out, interrupt)
    (first,) = contents(out)
    before = (out / first).stat().st_mtime_ns
    (out / "lists.txt").write_bytes(b"1 a")  # what a kill leaves
    extract([path], out, lambda _: None)
    assert contents(out) == FILES
    assert (out / first).stat().st_mtime_ns == before
