"""Files that are hostile, locked, strange or changing: each ends with a status, and nothing else is lost."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from email.message import EmailMessage

import pytest

from metier.sources.formats import archives, files, worker
from metier.sources.formats.files import opened, read_file
from metier.sources.formats.outcome import UnreadableError
from metier.sources.formats.pool import read_files
from metier.sources.read import ReadOptions, read_corpus
from metier.sources.records import read_jsonl
from small_files import docx, lines, paragraph, pdf, xlsx, zipped

TEXT = "A plain text that is long enough to be learned, number {}.\n"


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def statuses(path, name, password=""):
    return {found.name: (found.status, found.reason) for found in read_file(path, name, password)}


def account_of(folder):
    corpus = read_corpus([str(folder)])
    account = corpus.ledger.as_json()
    assert account["bytes"]["total"] == sum(n for bucket, n in account["bytes"].items() if bucket != "total")
    return corpus, {file.path: (file.status, file.reason) for file in corpus.files}


def letter(text, files=(), forwarded=()):
    message = EmailMessage()
    message["Subject"], message["From"] = "Papers", "a@example.org"
    if text:
        message.set_content(text)
    for name, data in files:
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    for other in forwarded:
        message.add_attachment(other)
    return message


def test_what_is_attached_to_a_message_is_read_as_files_of_a_folder(tmp_path):
    papers = [("a.pdf", pdf([lines([TEXT.format(1).strip()])])), ("b.txt", TEXT.format(2).encode())]
    others = [("../b.txt", TEXT.format(3).encode()), ("logo.png", b"1234"), ("c.pdf", b"%PDF-1.4 cut off")]
    inner = letter(TEXT.format(4), [("d.zip", zipped({"deep.txt": TEXT.format(5)}))])
    put(tmp_path / "one.eml", bytes(letter(TEXT.format(6), [*papers, *others], [inner])))
    put(tmp_path / "two.eml", bytes(letter("", [("e.txt", TEXT.format(7).encode())])))
    box = b"From a@b Thu Jan  1 00:00:00 2026\n" + bytes(letter(TEXT.format(8), [("f.txt", TEXT.format(9).encode())]))
    put(tmp_path / "box.mbox", box)
    corpus, found = account_of(tmp_path)
    expected = {
        "one.eml": 6,
        "one.eml/a.pdf": 1,
        "one.eml/b.txt": 2,
        "one.eml/b (2).txt": 3,
        "one.eml/message.eml": 4,
        "one.eml/message.eml/d.zip/deep.txt": 5,
        "two.eml/e.txt": 7,
        "box.mbox": 8,
        "box.mbox/1/f.txt": 9,
    }
    read = [one for name in ("one.eml", "two.eml", "box.mbox") for one in read_file(tmp_path / name, name)]
    texts = {one.name: one.documents[0].text for one in read if one.documents}
    assert set(texts) == set(expected)
    assert all(TEXT.format(n).strip() in texts[name] for name, n in expected.items())
    assert found["two.eml"] == ("ok", "has no text of its own, attachments only")
    assert found["one.eml/c.pdf"][0] == "rejected"
    assert next(file for file in corpus.files if file.path == "one.eml").removed == {"attachments": 1}
    of_text = sum(len(d.text.encode()) for one in read for d in one.documents)
    unread = sum(one.n_bytes for one in read if one.status == "rejected")
    assert corpus.ledger.as_json()["bytes"]["total"] - of_text - unread < 20  # line ends, not what is attached again


def test_a_named_message_with_nothing_but_attachments_is_read_for_them(tmp_path):
    put(tmp_path / "two.eml", bytes(letter("", [("e.txt", TEXT.format(7).encode()), ("logo.png", b"1234")])))
    put(tmp_path / "logo.eml", bytes(letter("", [("logo.png", b"1234")])))
    corpus = read_corpus([str(tmp_path / "two.eml")])
    assert [example.id for example in corpus.examples] == ["two.eml/e.txt"]
    assert next(file for file in corpus.files if file.path == "two.eml").removed == {"attachments": 1}
    reason = "has no text, only attachments of kinds that are not read"
    assert statuses(tmp_path / "logo.eml", "logo.eml") == {"logo.eml": ("no_text", reason)}


PART = "Content-Type: {}\n\n{}\n"
PAPER = 'Content-Type: text/plain; name="a.txt"\nContent-Disposition: attachment; filename="a.txt"\n\nAttached.\n'
BODY, PAGE = PART.format("text/plain", "The body."), PART.format("text/html", "<p>The body.</p>")


def several(kind, *parts):
    mark = f"m{abs(hash(parts))}"
    inside = "".join(f"--{mark}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{mark}"\n\n{inside}--{mark}--\n'


@pytest.mark.parametrize(
    ("parts", "n_left"),
    [
        (several("mixed", BODY, PAPER), 0),
        (several("alternative", BODY, several("mixed", PAGE, PAPER)), 0),
        (several("mixed", several("related", PAGE, PAPER)), 0),
        (several("mixed", several("mixed", BODY, PAPER), PART.format("text/plain", "The list's footer.")), 1),
        (several("signed", several("mixed", BODY, PAPER), PART.format("application/pkcs7-signature", "x")), 1),
    ],
)
def test_attachments_are_found_however_deep_they_hang(tmp_path, parts, n_left):
    put(tmp_path / "m.eml", f"Subject: S\nMIME-Version: 1.0\n{parts}")
    found = read_file(tmp_path / "m.eml", "m.eml")
    assert {one.name: one.documents[0].text for one in found} == {
        "m.eml/a.txt": "Attached.",
        "m.eml": "S\n\nThe body.",
    }
    assert found[-1].removed.get("attachments", 0) == n_left


def test_an_unnamed_file_is_known_by_its_kind_and_a_forwarded_message_is_kept_as_it_was(tmp_path):
    addresses = "name@example.org, " * 30  # and an open bracket, at which a header that is folded again breaks
    forwarded = PART.format("message/rfc822", f"To: {addresses}<\nSubject: Old\n\nThe old body.")
    pages = pdf([lines(["Some lines on a page."])]).decode("latin-1")
    unnamed = f"Content-Type: application/pdf\nContent-Transfer-Encoding: 8bit\n\n{pages}"
    message = f"Subject: S\nMIME-Version: 1.0\n{several('mixed', BODY, forwarded, unnamed)}"
    put(tmp_path / "m.eml", message.encode("latin-1"))
    found = {one.name: one for one in read_file(tmp_path / "m.eml", "m.eml")}
    assert set(found) == {"m.eml", "m.eml/message.eml", "m.eml/attachment.pdf"}
    assert found["m.eml/message.eml"].documents[0].text == "Old\n\nThe old body."


def test_what_comes_late_in_a_file_that_takes_long_is_named_and_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MOST_SECONDS_BEFORE", -1)
    found = statuses(put(tmp_path / "a.zip", zipped({"a.txt": TEXT.format(1)})), "a.zip")
    assert found["a.zip/a.txt"][0] == "rejected"
    assert "of reading what lies before it" in found["a.zip/a.txt"][1]


def test_messages_in_messages_are_opened_to_a_depth(tmp_path):
    message = letter(TEXT.format(0))
    for n in range(1, 6):
        message = letter(TEXT.format(n), forwarded=[message])
    put(tmp_path / "deep.eml", bytes(message))
    found = read_file(tmp_path / "deep.eml", "deep.eml")
    assert [one.documents[0].text.split()[-1] for one in found] == ["2.", "3.", "4.", "5."]
    assert found[0].removed == {"attachments": 1}


def test_every_file_of_an_archive_is_read_as_in_a_folder(tmp_path):
    inner = zipped({"deep.txt": TEXT.format(1)})
    rows = '{"question": "Why?", "answer": "So it is."}\n'
    data = zipped(
        {
            "a.txt": TEXT.format(2),
            "b/c.pdf": pdf([lines([TEXT.format(3).strip()])]),
            "inner.zip": inner,
            "rows.jsonl": rows,
            "README.md": TEXT.format(4),
            ".hidden.txt": TEXT.format(5),
            "picture.png": b"1234",
        }
    )
    put(tmp_path / "all.zip", data)
    corpus, found = account_of(tmp_path)
    assert {example.id for example in corpus.examples} == {
        "all.zip/a.txt",
        "all.zip/b/c.pdf",
        "all.zip/inner.zip/deep.txt",
        "all.zip/rows.jsonl:1",
    }
    assert found["all.zip/README.md"] == ("rejected", "describes the data")
    assert found["all.zip/picture.png"] == ("unsupported", "is a kind of file that is not read (.png)")
    assert found["all.zip"] == ("ok", "holds 7 files")
    assert "all.zip/.hidden.txt" not in found


def tar_of(members, mode="w:gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            if data is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def test_a_path_that_climbs_out_and_a_link_are_named_and_not_followed(tmp_path):
    outside = "../" * 12 + "tmp/escaped.txt"
    members = [(outside, b"x" * 50), ("/abs.txt", b"x" * 50), ("link.txt", None), ("good.txt", TEXT.encode())]
    path = put(tmp_path / "a.tar.gz", tar_of(members))
    found = statuses(path, "a.tar.gz")
    climbs = ("rejected", "has a path that climbs out of the archive")
    assert found[f"a.tar.gz/{outside}"] == found["a.tar.gz/abs.txt"] == climbs
    assert found["a.tar.gz/link.txt"] == ("unsupported", "is a link in the archive, not a file")
    assert found["a.tar.gz/good.txt"] == ("ok", "")
    assert found["a.tar.gz"] == ("partial", "3 of 4 files in it are not read")
    zipped_path = put(tmp_path / "a.zip", zipped({"..\\..\\x.txt": "x" * 50, "C:\\y.txt": "y" * 50}))
    assert {status for name, status in statuses(zipped_path, "a.zip").items() if name != "a.zip"} == {climbs}


def test_files_of_one_name_in_an_archive_are_told_apart(tmp_path):
    path = put(tmp_path / "a.tar", tar_of([("a.txt", TEXT.format(n).encode()) for n in range(3)], "w"))
    names = {example.id for example in read_corpus([str(path)]).examples}
    assert names == {"a.tar/a.txt", "a.tar/a (2).txt", "a.tar/a (3).txt"}


def test_a_flat_bomb_is_named_without_being_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    bomb = put(tmp_path / "bomb.zip", zipped({"a.txt": TEXT.format(1), "zeros.txt": b"0" * 50_000_000}))
    assert bomb.stat().st_size < 100_000
    found = statuses(bomb, "bomb.zip")
    assert found["bomb.zip/a.txt"] == ("ok", "")
    assert found["bomb.zip/zeros.txt"] == ("rejected", "unpacks to more than is allowed, as a bomb does")
    assert found["bomb.zip"][0] == "partial"
    zeros = b"0" * 50_000_000
    for name, data in (
        ("bomb.txt.gz", gzip.compress(zeros)),
        ("bomb.tgz", tar_of([("zeros.txt", zeros), ("a", b"a")])),
    ):
        found = statuses(put(tmp_path / name, data), name)
        assert found[name][1].startswith("unpacks to more than is allowed, as a bomb does")
        assert f"{name}/a" not in found


def test_an_archive_that_lies_about_the_size_of_a_member_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 100_000)
    data = bytearray(zipped({"zeros.txt": b"0" * 50_000_000}))
    for place in (22, data.index(b"PK\x01\x02") + 24):
        data[place : place + 4] = (1000).to_bytes(4, "little")
    found = statuses(put(tmp_path / "lies.zip", bytes(data)), "lies.zip")
    assert found["lies.zip/zeros.txt"][0] == "rejected"


def test_archives_in_archives_are_opened_to_a_limit_and_share_one_allowance(tmp_path, monkeypatch):
    nested = TEXT.format(1).encode()
    name = "0.txt"
    for depth in range(1, 6):
        nested = zipped({name: nested})
        name = f"{depth}.zip"
    found = statuses(put(tmp_path / "n.zip", nested), "n.zip")
    assert [reason for status, reason in found.values() if status == "rejected"] == [
        "lies 3 archives deep, one more than is opened"
    ]
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 3_000_000)
    inner = zipped({"zeros.txt": b"0" * 1_000_000})
    many = zipped({f"{n}.zip": inner + bytes(n) for n in range(20)})
    unpacked = [status for name, status in statuses(put(tmp_path / "m.zip", many), "m.zip").items() if "zeros" in name]
    assert 0 < sum(status == "ok" for status, _ in unpacked) < 4
    assert len(unpacked) == 20


def test_a_locked_archive_says_so_and_a_damaged_one_keeps_what_came_before(tmp_path):
    data = tar_of([("a.txt", TEXT.encode()), ("b.txt", os.urandom(50_000))])
    found = statuses(put(tmp_path / "cut.tgz", data[:-20_000]), "cut.tgz")
    assert found["cut.tgz/a.txt"] == ("ok", "")
    assert found["cut.tgz"][0] == "partial"
    locked = bytearray(zipped({"a.txt": TEXT}))
    for place in (6, locked.index(b"PK\x01\x02") + 8):
        locked[place] |= 1
    found = statuses(put(tmp_path / "locked.zip", bytes(locked)), "locked.zip")
    assert found["locked.zip/a.txt"] == ("needs_password", "opens with a password only")
    with zipfile.ZipFile(io.BytesIO(bytes(locked))) as archive:
        assert archive.infolist()[0].flag_bits & 1


def test_a_pipe_a_link_in_a_circle_and_a_broken_link_are_named_and_nothing_waits(tmp_path):
    put(tmp_path / "good.txt", TEXT.format(1))
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "circle.txt").symlink_to("circle.txt")
    (tmp_path / "broken.txt").symlink_to("nowhere.txt")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    put(tmp_path / "sub" / "more.txt", TEXT.format(2))
    corpus, found = account_of(tmp_path)
    assert [example.id for example in corpus.examples] == ["good.txt", "sub/more.txt"]
    assert found["pipe.txt"] == ("rejected", "is a pipe or a device, not a file")
    assert found["circle.txt"][1].startswith("is a link that leads nowhere (Too many levels of symbolic links")
    assert found["broken.txt"][1].startswith("is a link that leads nowhere (No such file")
    assert found["sub/up"][1].startswith("is a link to a folder, which is not followed")


WITHOUT_RIGHTS = """
import ctypes, sys
header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the third version of the capabilities, of this process
assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
from metier.sources.read import read_corpus
print([(f.path, f.status, f.reason) for f in read_corpus([sys.argv[1]]).files])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="root gives up its capabilities as Linux has them")
def test_a_closed_folder_and_a_closed_file_are_named(tmp_path):
    put(tmp_path / "good.txt", TEXT)
    put(tmp_path / "closed.txt", TEXT.format(1)).chmod(0)
    put(tmp_path / "closed.jsonl", "{}").chmod(0)
    put(tmp_path / "secret" / "a.txt", TEXT.format(2))
    (tmp_path / "secret").chmod(0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", WITHOUT_RIGHTS, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    (tmp_path / "secret").chmod(0o700)
    assert finished.returncode == 0, finished.stderr
    for expected in (
        ("closed.txt", "rejected", "cannot be read (Permission denied)"),
        ("closed.jsonl", "rejected", "cannot be read (Permission denied)"),
        ("secret", "rejected", "cannot be opened (Permission denied)"),
        ("good.txt", "ok", ""),
    ):
        assert str(expected) in finished.stdout


def test_a_file_that_changes_while_it_is_open_is_refused(tmp_path):
    growing = put(tmp_path / "a.txt", TEXT)
    guard = opened(growing)
    guard.__enter__().read()
    with growing.open("a") as more:
        more.write("more")
    with pytest.raises(UnreadableError, match="changed while it was read"):
        guard.__exit__(None, None, None)


def test_rows_that_change_while_they_are_read_are_rejected_and_the_other_files_are_read(tmp_path, monkeypatch):
    put(tmp_path / "good.txt", TEXT)
    growing = put(tmp_path / "a.jsonl", '{"text": "' + TEXT.format(1).strip() + '"}\n')

    def slowly(file):
        with growing.open("a") as more:
            more.write("{")
        return read_jsonl(file)

    monkeypatch.setattr("metier.sources.rowfiles.read_jsonl", slowly)
    _, found = account_of(tmp_path)
    assert found["a.jsonl"] == ("rejected", "changed while it was read")
    assert found["good.txt"] == ("ok", "")


def test_a_file_larger_than_one_document_may_be_is_named_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_FILE_BYTES", 1 << 20)
    put(tmp_path / "good.txt", TEXT)
    put(tmp_path / "long.txt", b"word " * 300_000)
    _, found = account_of(tmp_path)
    assert found["long.txt"] == ("rejected", "is larger than 1 MiB (1 MiB)")


def test_a_row_longer_than_a_row_may_be_is_a_bad_row_of_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr("metier.sources.records.MOST_LINE_BYTES", 1000)
    row = '{"question": "Why?", "answer": "So it is."}\n'
    long = '{"question": "Why?", "answer": "' + "x" * 5000 + '"}\n'
    put(tmp_path / "d" / "a.jsonl", row + long + row.replace("Why", "How"))
    corpus, found = account_of(tmp_path / "d")
    assert found["a.jsonl"] == ("partial", "1 of 3 rows cannot be read")
    assert [example.line for example in corpus.examples] == [1, 3]
    assert corpus.ledger.as_json()["bytes"]["rejected"] == len(long)


@pytest.mark.slow
def test_the_memory_for_a_line_of_two_gigabytes_is_bounded(tmp_path):
    for name in ("line.txt", "line.jsonl", "line.csv"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2 << 30)
            file.seek(0)
            file.write(b'{"question": "')
    put(tmp_path / "good.txt", TEXT)
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from metier.sources.read import read_corpus\n"
        "print([(f.path, f.status) for f in read_corpus([sys.argv[1]]).files])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    for name in ("line.txt", "line.jsonl", "line.csv"):
        assert f"('{name}', 'rejected')" in finished.stdout
    assert "('good.txt', 'ok')" in finished.stdout


def test_a_file_that_kills_its_reader_is_rejected_and_the_others_are_read(tmp_path, monkeypatch):
    good = [put(tmp_path / f"{n}.pdf", pdf([lines([TEXT.format(n).strip()])])) for n in range(6)]
    killer = put(tmp_path / "killer.pdf", b"%PDF killer")
    crash = "import os, signal, metier.sources.formats.kinds as k\n"
    crash += "real = k.KINDS['.pdf'].read\n"
    crash += "def read(data, password=''):\n    if b'killer' in data: os.kill(os.getpid(), signal.SIGSEGV)\n"
    crash += "    return real(data, password)\n"
    crash += "k.KINDS['.pdf'] = k.Kind('PDF', read, locks=True)\n"
    put(tmp_path / "site" / "sitecustomize.py", crash)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    order = [*good[:3], killer, *good[3:]]
    found = [one for (one,) in read_files([(path, path.name) for path in order])]
    assert [one.name for one in found] == [path.name for path in order]
    assert [one.status for one in found] == ["ok"] * 3 + ["rejected"] + ["ok"] * 3
    assert "kills its reader (Segmentation fault)" in found[3].reason


def test_an_error_of_a_library_is_a_rejection_that_names_it(tmp_path, monkeypatch):
    def broken(_data):
        raise KeyError("inside")

    monkeypatch.setitem(files.KINDS, ".txt", files.KINDS[".txt"].__class__("text", broken))
    assert statuses(put(tmp_path / "a.txt", TEXT), "a.txt")["a.txt"] == (
        "rejected",
        "could not be read (KeyError: 'inside')",
    )


def test_the_worker_answers_until_its_jobs_end(tmp_path):
    import pickle

    path = put(tmp_path / "a.txt", TEXT)
    answers = io.BytesIO()
    worker.serve(io.BytesIO(pickle.dumps((str(path), "a.txt", "")) + pickle.dumps((str(path), "b.txt", ""))), answers)
    answers.seek(0)
    assert [pickle.load(answers)[0].name for _ in range(2)] == ["a.txt", "b.txt"]


def test_a_sheet_of_questions_and_answers_is_rows_and_any_other_is_a_text(tmp_path):
    put(tmp_path / "faq.xlsx", xlsx({"S": [["Question", "Answer"], ["Why is it so?", "Because."], ["How?", "Thus."]]}))
    put(tmp_path / "fuel.xlsx", xlsx({"S": [["Litres", "Tank"], [12, "the left one of both"]]}))
    corpus, found = account_of(tmp_path)
    assert [example.id for example in corpus.examples] == ["faq.xlsx:1", "faq.xlsx:2", "fuel.xlsx"]
    assert corpus.examples[2].text == "Litres | Tank\n12 | the left one of both"
    assert {status for status, _ in found.values()} == {"ok"}


def test_a_password_reaches_every_file(tmp_path):
    put(tmp_path / "a.pdf", pdf([lines([TEXT.format(1).strip()])], password="tower"))
    put(tmp_path / "b.docx", docx(paragraph(TEXT.format(2).strip())))
    found = read_corpus([str(tmp_path)], ReadOptions(password="tower"))
    assert {file.status for file in found.files} == {"ok"}
    assert account_of(tmp_path)[1]["a.pdf"][0] == "needs_password"
