"""Download from a server in this process: resume, checksums, broken transfers, archives that lie,
whole corpora."""

import hashlib
import http.server
import io
import json
import re
import stat
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from avkit.cli import main
from avkit.datasets import download as d
from avkit.core import AvkitError

pytest.importorskip("pooch")
DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(DATA).hexdigest()
FAST = dict(wait=0, bar=False)


class Server(http.server.ThreadingHTTPServer):
    """files: {path: bytes}; ranges: whether it knows them; most: bytes after which it hangs up;
    log: (path, Range, If-Range)"""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.most, self.tag, self.log, self.fail, self.length = (
            {},
            True,
            None,
            '"v1"',
            [],
            [],
            True,
        )
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *a):
        pass

    def do_GET(self):
        s, path = self.server, self.path.split("?")[0]
        s.log.append((path, self.headers.get("Range"), self.headers.get("If-Range")))
        if s.fail:
            return self.send_error(s.fail.pop(0))
        if path not in s.files:
            return self.send_error(404)
        data, start = s.files[path], 0
        m = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if m and s.ranges and self.headers.get("If-Range", s.tag) == s.tag:
            start = int(m[1])
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if s.length:
            self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", s.tag)
        self.end_headers()
        self.wfile.write(data[start : start + s.most] if s.most else data[start:])


@pytest.fixture
def server():
    s = Server()
    s.files["/a.bin"] = DATA
    t = threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=0.01), daemon=True)
    t.start()
    yield s
    s.shutdown()
    s.server_close()


def left(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_resume_asks_for_the_rest(server, tmp_path):
    server.most = 100_000
    assert d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
    assert [r for _, r, _ in server.log] == [None, "bytes=100000-", "bytes=200000-"] and server.log[
        1
    ][2] == '"v1"'
    assert left(tmp_path) == ["a.bin"]


def test_resume_in_another_run(server, tmp_path):
    server.most, server.fail = 50_000, []
    attempt = d._attempt

    def once(to, url):
        if to._have():
            raise d._BrokeOff("the network is gone")
        attempt(to, url)

    with (
        pytest.MonkeyPatch.context() as mp,
        pytest.raises(AvkitError, match="broke off after 50,000 bytes .*goes on from there"),
    ):
        mp.setattr(d, "_attempt", once)
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST)
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    server.most, server.log[:] = None, []
    assert d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
    assert server.log == [("/a.bin", "bytes=50000-", '"v1"')] and left(tmp_path) == ["a.bin"]


def part_of(tmp_path, data, tag='"v1"'):
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part/a.bin.part").write_bytes(data)
    (tmp_path / ".part/a.bin.part.json").write_text(json.dumps(dict(url="x", tag=tag)))


@pytest.mark.parametrize("case", ["no ranges", "new version"])
def test_server_sends_everything_again(server, tmp_path, case):
    part_of(
        tmp_path, b"x" * 70_000, '"v0"' if case == "new version" else '"v1"'
    )  # what is there is not of this version
    server.ranges = case != "no ranges"
    assert d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
    assert server.log[0][1] == "bytes=70000-" and len(server.log) == 1


def test_part_that_is_already_whole_or_too_long(server, tmp_path):
    part_of(tmp_path, DATA)
    assert (
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
        and len(server.log) == 1
    )
    (tmp_path / "b").mkdir()
    part_of(tmp_path / "b", DATA + b"more")
    assert d.fetch(server.url + "/a.bin", tmp_path / "b/a.bin", SHA, **FAST).read_bytes() == DATA
    assert [r for _, r, _ in server.log[1:]] == [f"bytes={len(DATA) + 4}-", None]


def test_wrong_checksum_keeps_nothing(server, tmp_path):
    for bad in ("0" * 64, "md5:" + "0" * 32):
        with pytest.raises(AvkitError, match="does not have the checksum"):
            d.fetch(server.url + "/a.bin", tmp_path / "a.bin", bad, **FAST)
        assert left(tmp_path) == []
    assert d.fetch(
        server.url + "/a.bin", tmp_path / "a.bin", "md5:" + hashlib.md5(DATA).hexdigest(), **FAST
    ).is_file()


def test_wrong_size_keeps_nothing(server, tmp_path):
    with pytest.raises(AvkitError, match="300,000 bytes, 300,001 were expected"):
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", None, 300_001, **FAST)
    assert not (tmp_path / "a.bin").exists() and "a.bin.part" not in left(tmp_path)


def test_a_length_that_is_not_announced_is_no_excuse(server, tmp_path):
    server.length, server.most = False, 120_000
    with pytest.raises(AvkitError, match="120,000 bytes, 300,000 were expected"):
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, 300_000, **FAST)
    with pytest.raises(AvkitError, match="does not have the checksum"):
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST)
    assert not (tmp_path / "a.bin").exists()


def test_errors_that_pass_and_errors_that_do_not(server, tmp_path):
    server.fail = [503, 429, 500]
    assert (
        d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).is_file()
        and len(server.log) == 4
    )
    server.log.clear()
    with pytest.raises(AvkitError, match="404 Not Found. The owner may have moved it"):
        d.fetch(server.url + "/b.bin", tmp_path / "b.bin", **FAST)
    assert len(server.log) == 1
    server.fail = [503] * 9
    with pytest.raises(AvkitError, match="broke off after 0 bytes.*503"):
        d.fetch(server.url + "/c.bin", tmp_path / "c.bin", **FAST)
    with pytest.raises(AvkitError, match="broke off after 0 bytes"):
        d.fetch("http://127.0.0.1:9/a", tmp_path / "c.bin", tries=2, **FAST)


def test_next_address_when_the_first_fails(server, tmp_path):
    server.files["/other.bin"] = b"changed"
    urls = [server.url + u for u in ("/gone.bin", "/other.bin", "/a.bin")]
    assert d.fetch(urls, tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
    assert [p for p, _, _ in server.log] == ["/gone.bin", "/other.bin", "/a.bin"]


def zipped(path, names, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for n, data in names.items():
            z.writestr(n, data)
        for n in links:
            i = zipfile.ZipInfo(n)
            i.create_system, i.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            z.writestr(i, "/etc")
    return path


def tarred(path, *members):
    with tarfile.open(path, "w:gz") as t:
        for name, data, kind in members:
            i = tarfile.TarInfo(name)
            i.size, i.type, i.linkname = (
                (len(data), tarfile.REGTYPE, "") if kind is None else (0, kind, data.decode())
            )
            t.addfile(i, io.BytesIO(data if kind is None else b""))
    return path


EVIL = [
    {"../evil": b"x"},
    {"ok/../../evil": b"x"},
    {"/evil": b"x"},
    {"..\\evil": b"x"},
    {"C:\\evil": b"x"},
    {"ok.wav": b"x", "a/../../../evil": b"x"},
]


@pytest.mark.parametrize("names", EVIL, ids=[list(n)[-1] for n in EVIL])
def test_zip_with_a_path_outside(tmp_path, names):
    with pytest.raises(AvkitError, match="leaves the folder; nothing was unpacked"):
        d.unpack(zipped(tmp_path / "x.zip", names), tmp_path / "in/x")
    assert left(tmp_path) == ["x.zip"] and not (tmp_path / "in/x").exists()


def test_zip_with_a_link(tmp_path):
    with pytest.raises(AvkitError, match="is a link or a device"):
        d.unpack(zipped(tmp_path / "x.zip", {"a.wav": b"1"}, ["etc"]), tmp_path / "x")
    assert left(tmp_path) == ["x.zip"]


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x", None)],
        [("/evil", b"x", None)],
        [("l", b"/etc", tarfile.SYMTYPE)],
        [("l", b"../../x", tarfile.SYMTYPE)],
        [("h", b"/etc/passwd", tarfile.LNKTYPE)],
        [("ok", b"1", None), ("dev", b"", tarfile.CHRTYPE)],
    ],
)
def test_tar_that_leaves_the_folder(tmp_path, members):
    with pytest.raises(AvkitError, match="Do not trust this file"):
        d.unpack(tarred(tmp_path / "x.tar.gz", *members), tmp_path / "x")
    assert left(tmp_path) == ["x.tar.gz"] and not (tmp_path / "x").exists()


def test_archives_unpack_whole(tmp_path):
    d.unpack(
        zipped(tmp_path / "x.zip", {"Actor_01/a.wav": b"1", "Actor_01/b b.wav": b"2"}),
        tmp_path / "x",
    )
    d.unpack(tarred(tmp_path / "y.tar.gz", ("Actor_01/ä.wav", b"1", None)), tmp_path / "y")
    assert (
        left(tmp_path) == ["a.wav", "b b.wav", "x.zip", "y.tar.gz", "ä.wav"]
        and (tmp_path / "x/Actor_01/b b.wav").read_bytes() == b"2"
    )


def test_bomb_and_full_disk(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "x.zip", {"a.wav": bytes(30_000_000)})
    with pytest.raises(AvkitError, match="claim to be 30,000,000"):
        d.unpack(bomb, tmp_path / "x")
    big = zipped(tmp_path / "y.zip", {"a.wav": DATA})
    monkeypatch.setattr(d.shutil, "disk_usage", lambda p: type("U", (), dict(free=1000)))
    with pytest.raises(AvkitError, match="free some space"):
        d.unpack(big, tmp_path / "y")
    assert left(tmp_path) == ["x.zip", "y.zip"]


@pytest.mark.parametrize("hurt", ["cut", "flipped", "text"])
def test_damaged_archives_leave_nothing(tmp_path, hurt):
    p = zipped(tmp_path / "x.zip", {"a.wav": DATA, "b.wav": DATA})
    whole = p.read_bytes()
    p.write_bytes(
        {
            "cut": whole[:200_000],
            "flipped": whole[:400_000] + bytes([whole[400_000] ^ 255]) + whole[400_001:],
            "text": b"<html>sorry</html>",
        }[hurt]
    )
    with pytest.raises(AvkitError, match="download it again"):
        d.unpack(p, tmp_path / "x")
    assert left(tmp_path) == ["x.zip"] and not (tmp_path / "x").exists()


def test_a_killed_unpacking_is_no_folder(tmp_path, monkeypatch):
    "What is there before the rename has another, hidden name, and is no part of the corpus"
    from avkit.datasets import ravdess

    p = zipped(
        tmp_path / "Speech.zip", {f"Actor_01/03-01-0{e}-01-01-01-01.wav": b"x" for e in range(1, 9)}
    )
    seen = []
    monkeypatch.setattr(
        d.os,
        "replace",
        lambda a, b: seen.append(left(tmp_path)) or (_ for _ in ()).throw(KeyboardInterrupt()),
    )
    monkeypatch.setattr(d.shutil, "rmtree", lambda *a, **k: None)  # killed: nobody clears up
    with pytest.raises(KeyboardInterrupt):
        d.unpack(p, tmp_path / "Speech")
    assert len(seen[0]) == 9 and not (tmp_path / "Speech").exists()
    with pytest.raises(AvkitError, match="No RAVDESS speech file"):
        ravdess.index(tmp_path)
    monkeypatch.undo()
    d.unpack(p, tmp_path / "Speech")
    assert len(ravdess.index(tmp_path)) == 8 and not list(tmp_path.glob(".*"))


def test_download_ravdess_as_it_is_laid_out(server, tmp_path, monkeypatch, capsys):
    "Archives by actor, a sound archive with a checksum: unpacked, indexed, idempotent"
    from avkit.datasets import ravdess
    from avkit.datasets.manifest import corpus_info

    info = corpus_info("ravdess")
    name = "Audio_Speech_Actors_01-24.zip"
    archives = {
        name: zipped(
            tmp_path / "a.zip",
            {f"Actor_{a:02d}/03-01-05-01-01-01-{a:02d}.wav": bytes([a]) for a in (1, 2)},
        ).read_bytes()
    }
    for a in (1, 2):
        archives[f"Video_Speech_Actor_{a:02d}.zip"] = zipped(
            tmp_path / "v.zip",
            {f"Actor_{a:02d}/0{k}-01-05-01-01-01-{a:02d}.mp4": bytes([k, a]) for k in (1, 2)},
        ).read_bytes()
    server.files = {f"/{n}": b for n, b in archives.items()}
    audio, video = (
        {**e, "url": re.sub(r"https://zenodo.org/records/1188976/files", server.url, e["url"])}
        for e in info["download"]
    )
    audio |= dict(
        checksum="md5:" + hashlib.md5(archives[name]).hexdigest(), bytes=len(archives[name])
    )
    video["each"] = dict(actor=["01", "02"])
    monkeypatch.setattr(d, "corpus_info", lambda c: info | dict(download=[audio, video]))
    server.most = 150
    root = tmp_path / "data"
    d.download("ravdess", root, wait=0)
    m = ravdess.index(root)
    assert m.clips["clip"].tolist() == [f"01-01-05-01-01-01-{a:02d}" for a in (1, 2)] and not len(
        m.problems
    )
    assert (
        not list(root.rglob("*.zip"))
        and not list(root.glob(".*"))
        and "CC BY-NC-SA" in capsys.readouterr().out
    )
    server.log.clear()
    d.download("ravdess", root, "audio", wait=0)
    assert server.log == []
    audio["checksum"] = "md5:" + "0" * 32
    with pytest.raises(AvkitError, match="checksum"):
        d.download("ravdess", tmp_path / "again", "audio", wait=0)
    assert left(tmp_path / "again") == []
    server.files.pop("/Video_Speech_Actor_02.zip")
    with pytest.raises(AvkitError, match="1 of 2 files of part 'video' are missing.*404"):
        d.download("ravdess", tmp_path / "third", "video", wait=0)
    assert left(tmp_path / "third") == [f"0{k}-01-05-01-01-01-01.mp4" for k in (1, 2)]


def test_download_crema_d_by_its_lfs_pointers(server, tmp_path, monkeypatch):
    """The list of clips brings the files, their pointers the checksums; a file that is not the
    owners' is fetched from the next address"""
    from avkit.datasets.manifest import corpus_info

    info, clips = corpus_info("crema_d"), ["1001_IEO_NEU_XX", "1001_IEO_HAP_LO"]
    short = {
        "https://raw.githubusercontent.com": "/raw",
        "https://media.githubusercontent.com": "/media",
        "https://gitlab.com": "/mirror",
    }

    def local(u):
        for k, v in short.items():
            u = u.replace(k, server.url + v)
        return u

    assert all(
        u.startswith(tuple(short))
        for e in info["download"]
        for u in ([e["url"]] if isinstance(e["url"], str) else e["url"])
    )
    for e in info["download"]:
        e |= dict(url=[local(u) for u in ([e["url"]] if isinstance(e["url"], str) else e["url"])])
    for e in info["download"]:
        e |= dict(pointer=local(e["pointer"])) if "pointer" in e else {}
    repo = "/CheyneyComputerScience/CREMA-D/master/"
    for t in (
        "SentenceFilenames.csv",
        "VideoDemographics.csv",
        "processedResults/tabulatedVotes.csv",
        "processedResults/summaryTable.csv",
    ):
        server.files["/raw" + repo + t] = b"x"
    server.files["/raw" + repo + "SentenceFilenames.csv"] = (
        '"Stimulus_Number","Filename"\n' + "".join(f'{i},"{c}"\n' for i, c in enumerate(clips))
    ).encode()
    for c in clips:
        for f in (f"AudioWAV/{c}.wav", f"VideoFlash/{c}.flv"):
            data = f.encode() * 100
            server.files["/raw" + repo + f] = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n".encode()  # noqa: E501
            )
            server.files["/media/media" + repo + f] = data
    broken = f"AudioWAV/{clips[0]}.wav"
    server.files["/mirror/cs-cooper-lab/crema-d-mirror/-/raw/HEAD/" + broken] = server.files[
        "/media/media" + repo + broken
    ]
    server.files["/media/media" + repo + broken] = b"version https://git-lfs: over its data quota"
    monkeypatch.setattr(d, "corpus_info", lambda c: info)
    d.download("crema_d", tmp_path / "c", wait=0)
    assert left(tmp_path / "c") == sorted(
        [
            *(f"{c}.{s}" for c in clips for s in ("wav", "flv")),
            "SentenceFilenames.csv",
            "VideoDemographics.csv",
            "summaryTable.csv",
            "tabulatedVotes.csv",
        ]
    )
    assert (tmp_path / "c" / broken).read_bytes() == broken.encode() * 100 and not list(
        (tmp_path / "c").rglob(".*")
    )
    server.log.clear()
    (tmp_path / "c" / broken).unlink()
    d.download("crema_d", tmp_path / "c", "audio", wait=0)
    assert len(server.log) == 3  # its pointer and two addresses
    server.files["/raw" + repo + "SentenceFilenames.csv"] = (
        b'"Stimulus_Number","Filename"\n1,"../../evil"\n'
    )
    with pytest.raises(AvkitError, match="is no name of a clip"):
        d.download("crema_d", tmp_path / "e", wait=0)


def test_what_may_not_be_downloaded():
    with pytest.raises(AvkitError, match="cannot be downloaded by avkit. Request it"):
        d.entries("msp_improv")
    with pytest.raises(AvkitError, match="no part 'songs'; it has audio, video"):
        d.entries("ravdess", "songs")
    assert [e["part"] for e in d.entries("crema_d", ["audio"])] == ["tables"] * 4 + ["audio"]


def test_command_line(server, tmp_path, monkeypatch, capsys):
    from avkit.datasets.manifest import corpus_info

    info = corpus_info("ravdess") | dict(
        download=[dict(part="audio", url=server.url + "/a.bin", file="a.bin", checksum=SHA)]
    )
    monkeypatch.setattr(d, "corpus_info", lambda c: info)
    assert (
        main(["download", "--dataset", "ravdess", "--data_root", str(tmp_path)]) == 0
        and (tmp_path / "a.bin").read_bytes() == DATA
    )
    assert (
        main(["download", "--dataset", "ravdess", "--data_root", str(tmp_path), "--parts", "video"])
        == 2
    )
    assert "it has audio" in capsys.readouterr().err


class Odd(http.server.BaseHTTPRequestHandler):
    "server.answer(start, asked so far) -> status, headers, body (an iterator of blocks)"

    def log_message(self, *a):
        pass

    def do_GET(self):
        m = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.asked.append(int(m[1]) if m else 0)
        status, headers, body = self.server.answer(self.server.asked[-1], len(self.server.asked))
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k, v)
        self.end_headers()
        try:
            for block in body:
                self.wfile.write(block)
        except OSError:
            self.server.left = True


@pytest.fixture
def odd():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    s.daemon_threads, s.asked, s.left = True, [], False
    s.url = f"http://127.0.0.1:{s.server_port}/a.bin"
    threading.Thread(target=s.serve_forever, args=(0.01,), daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()


def test_the_same_bytes_again_and_again_come_to_an_end(odd, tmp_path):
    "Each second answer fits to nothing, so that the part begins anew: no attempt gets further"
    odd.answer = lambda start, n: (
        (200, {"Content-Length": "90", "ETag": '"v1"'}, [b"x" * 40])
        if n % 2
        else (206, {"Content-Range": "bytes 7-89/90"}, [b""])
    )
    with pytest.raises(AvkitError, match="broke off after"):
        d.fetch(odd.url, tmp_path / "a.bin", tries=3, **FAST)
    assert len(odd.asked) == 4


def test_a_byte_at_a_time_comes_to_an_end(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(d, "ATTEMPTS", 7)
    odd.answer = lambda start, n: (
        206 if start else 200,
        {"Content-Range": f"bytes {start}-89/90", "Content-Length": str(90 - start), "ETag": '"1"'},
        [b"x"],
    )
    with pytest.raises(AvkitError, match="broke off after 7 bytes"):
        d.fetch(odd.url, tmp_path / "a.bin", **FAST)
    assert odd.asked == [*range(7)]
    monkeypatch.setattr(d, "HOURS", 0)
    with pytest.raises(AvkitError, match="not done in 0 hours"):
        d.fetch(odd.url, tmp_path / "a.bin", **FAST)
    assert len(odd.asked) == 8


def forever():
    while True:
        yield bytes(1 << 16)


@pytest.mark.parametrize("told", ["announced", "not announced", "no size known"])
def test_more_than_there_can_be_is_refused_as_it_comes(odd, tmp_path, told):
    announced = {"Content-Length": str(10**15)} if told == "announced" else {}
    odd.answer = lambda start, n: (200, announced, forever())
    size, most = (None, 300_000) if told == "no size known" else (300_000, d.LARGEST)
    with pytest.raises(AvkitError, match="300,000 were expected.*It was not kept"):
        d.fetch(odd.url, tmp_path / "a.bin", None, size, most=most, **FAST)
    assert len(odd.asked) == 1 and not list((tmp_path / ".part").glob("*.part"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "9" * 5000},
        {"Content-Range": "bytes 0-1/" + "9" * 5000},
        {"ETag": '"a\x01b"'},
        {"Last-Modified": "x" * 9000},
        {"Content-Encoding": "gzip"},
        {"Location": "http://[::1"},
    ],
)
def test_odd_headers_are_a_sentence(odd, tmp_path, headers):
    status = 302 if "Location" in headers else 206 if "Content-Range" in headers else 200
    odd.answer = lambda start, n: (status, headers, [b"abc"])
    try:
        assert d.fetch(odd.url, tmp_path / "a.bin", tries=2, **FAST).read_bytes() == b"abc"
    except AvkitError as e:
        assert "broke off" in str(e)


@pytest.mark.parametrize("note", ["[1]", '{"tag": [1]}', '{"tag": "a\\nb"}', "{", '{"tag": 3}'])
def test_an_odd_note_is_no_note(server, tmp_path, note):
    part_of(tmp_path, DATA[:100])
    (tmp_path / ".part/a.bin.part.json").write_text(note)
    assert d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST).read_bytes() == DATA
    assert server.log == [("/a.bin", None, None)]


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder", "desk"])
def test_nobody_writes_through_a_part(server, tmp_path, kind):
    import os

    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"mine")
    desk, part = tmp_path / ".part", tmp_path / ".part/a.bin.part"
    (tmp_path / "elsewhere").mkdir()
    if kind == "desk":
        desk.symlink_to(tmp_path / "elsewhere")
    else:
        desk.mkdir()
    make = {"link": part.symlink_to, "second name": part.hardlink_to}.get(kind)
    if make:
        make(mine)
    elif kind == "pipe":
        os.mkfifo(part)
    elif kind != "desk":
        part.mkdir()
    (desk / "a.bin.part.json").write_text('{"tag": "\\"v1\\""}')
    if kind in ("folder", "desk"):
        with pytest.raises(AvkitError, match="remove it"):
            d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST)
    else:
        got = d.fetch(server.url + "/a.bin", tmp_path / "a.bin", SHA, **FAST)
        assert got.read_bytes() == DATA and not got.is_symlink()
    assert mine.read_bytes() == b"mine" and not list((tmp_path / "elsewhere").glob("*.part"))


def header(name=b"a.wav", size=b"00000000004\0", kind=b"0"):
    "A tar header of any bytes, with its checksum"
    h = bytearray(512)
    h[: len(name)], h[100:108], h[124 : 124 + len(size)] = name, b"0000644\0", size
    h[136:148], h[156:157], h[257:265] = b"00000000000\0", kind, b"ustar\x0000"
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def pax(**fields):
    "A tar member, after a pax header that says something else of it"
    text = b"".join(pax_record(k.replace("__", "."), v) for k, v in fields.items())
    size = b"%011o\0" % len(text)
    return header(b"x", size, b"x") + text.ljust(-(-len(text) // 512) * 512, b"\0") + one()


def pax_record(key, value):
    rest = f" {key}={value}\n".encode()
    n = len(rest) + len(str(len(rest)))
    n += len(str(n)) - len(str(len(rest)))
    return str(n).encode() + rest


def one(**odd):
    return header(**odd) + b"data".ljust(512, b"\0")


BELOW_0 = b"\xff" * 12  # -1, as numbers beyond octal ones are written
TARS = {
    "size below 0": one(size=BELOW_0) + one(name=b"b.wav"),
    "far below 0": one(size=b"\xff" * 10 + b"\xfc\x00") + one(name=b"b.wav"),
    "huge": one(size=b"77777777777\0"),
    "no number": one(size=b"zzzzzzzzzzz\0"),
    "twice": one() + one(),
    "twice, spelt otherwise": one() + one(name=b"./a.wav"),
    "sparse": one(kind=b"S"),
    "of a kind that nobody knows": one(kind=b"Z"),
    "pipe": one(kind=b"6"),
    "pax: above": pax(path="../a.wav"),
    "pax: absolute": pax(path="/a.wav"),
    "pax: size below 0": pax(size="-512"),
    "pax: no size": pax(size="x"),
    "pax: no time": pax(mtime="nan"),
    "pax: no end of time": pax(mtime="1e999"),
    "pax: sparse": pax(
        GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="9" * 9
    ),
    "pax: sparse map": pax(GNU__sparse__map="0,1,x", GNU__sparse__size="4"),
    "name below 0": header(b"x", BELOW_0, b"L") + b"y".ljust(512, b"\0") + one(),
}


@pytest.mark.parametrize("kind", TARS)
def test_odd_headers_of_a_tar_leave_nothing(tmp_path, kind):
    "Or, where they are harmless, a file inside the folder"
    (tmp_path / "x.tar").write_bytes(TARS[kind] + bytes(1024))
    try:
        d.unpack(tmp_path / "x.tar", tmp_path / "in/x")
    except AvkitError as e:
        assert "x.tar" in str(e) and left(tmp_path) == ["x.tar"]
    else:
        assert kind in ("of a kind that nobody knows", "pax: no size")
        assert left(tmp_path) == ["a.wav", "x.tar"] and (tmp_path / "in/x/a.wav").is_file()


def test_a_pointer_is_a_short_text(odd, tmp_path):
    odd.answer = lambda start, n: (200, {}, forever())
    with pytest.raises(AvkitError, match="1,024 were expected at most"):
        d._pointer(odd.url, tmp_path / "a.flv", wait=0)
