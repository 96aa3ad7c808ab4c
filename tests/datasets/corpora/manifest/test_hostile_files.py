"""Whatever a file of a user holds is refused in a sentence, or accepted, within a bounded time and memory."""

import json
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfold.datasets.corpora.clips import ClipInfo
from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from crossfold.datasets.corpora.media_checks import check_transcript
from crossfold.datasets.corpora.partitions import read_fold_file
from crossfold.platform.core.errors import UserError
from tests.support.media import assert_readable

ROWS = "clip,partition,visual_features,labels,rate\na,train,a.npy,a.csv,4\nb,validation,b.npy,b.csv,4\n"


def corpus(root: Path) -> Path:
    root.mkdir(parents=True)
    for clip in "ab":
        np.save(root / f"{clip}.npy", np.ones((4, 2)))
        (root / f"{clip}.csv").write_text("time,v\n0,0.1\n0.25,0.2\n0.5,0.3\n0.75,0.4\n")
    (root / "manifest.csv").write_text(ROWS)
    (root / "manifest.yaml").write_text("name: x\ntargets: {v: {low: -1, high: 1}}\n")
    return root


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes that promises so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )


def crops(name: str, content: bytes):
    def write(root: Path) -> None:
        (root / "crops").mkdir()
        (root / "crops" / name).write_bytes(content)
        (root / "manifest.csv").write_text("clip,partition,crops,label:v,rate\na,train,crops,1,4\nb,dev,crops,1,4\n")

    return write


def put(name: str, content: str | bytes):
    data = content.encode() if isinstance(content, str) else content
    return lambda root: (root / name).write_bytes(data)


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
HOSTILE = {
    "manifest of 100,000 columns": put("manifest.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n"),
    "manifest of 5,000,000 rows": put("manifest.csv", "clip\n" + "a\n" * 5_000_000),
    "labels of 100,000 columns": put("a.csv", ",".join(f"c{n}" for n in range(100_000)) + "\n"),
    "labels of one long cell": put("a.csv", "v\n" + "9" * 3_000_000 + "\n"),
    "labels with an open quote": put("a.csv", 'v\n"' + "1\n" * 1_000_000),
    "aliases of aliases": put("manifest.yaml", LAUGHS),
    "deep lists": put("manifest.yaml", "[" * 100_000),
    "digits": put("manifest.yaml", "targets: {v: {low: 0, high: " + "9" * 5000 + "}}"),
    "picture of 900 million pixels": crops("00001.png", bomb(30_000, 30_000)),
    "picture of 150 million pixels": crops("00001.png", bomb(15_000, 10_000)),
    "crop number that is a date": crops("20240131123000.png", bomb(8, 8)),
    "crop number of a billion": crops("1000000000.png", bomb(8, 8)),
    "crop number of a million": crops("1100000.png", bomb(8, 8)),
    "frame number of a billion": put("a.csv", "frame,v\n0,0.1\n1000000000,0.2\n"),
    "nothing between zeros": put("manifest.csv", ROWS.replace("a.npy", "a\0.npy")),
    "array that promises 8 TB": put(
        "a.npy", b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1), }".ljust(128)
    ),
}
CHILD = """
import resource, sys
from pathlib import Path
from crossfold.datasets.corpora.manifest.reader import inspect_manifest
before = resource.getrusage(resource.RUSAGE_SELF)
found = inspect_manifest(Path(sys.argv[1]), deep=True)
after = resource.getrusage(resource.RUSAGE_SELF)
errors = [str(f) for f in found.findings if f.severity == "error"]
print(after.ru_utime - before.ru_utime, after.ru_maxrss, errors[0] if errors else "accepted")
"""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_refused_within_two_seconds_and_a_gigabyte(tmp_path, kind):
    root = corpus(tmp_path / "data")
    HOSTILE[kind](root)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (20, 20)),
    )
    assert done.returncode == 0, done.stderr[-500:]
    seconds, kilobytes, problem = done.stdout.strip().split(" ", 2)
    assert problem.startswith("error: ")
    assert float(seconds) < 2
    assert int(kilobytes) < 1_000_000
    assert len(problem) < 600


WORDS = "time frame start end v clip nan -5 0 0.5 1e9 2024-01-31 00:00:01.5 &a *a =1"
FRAGMENTS = st.sampled_from([*WORDS.split(), *",;\t\n\"'#\0{[]}:_ \r\ufeff", "9" * 400, "- "])
TEXTS = st.one_of(st.lists(FRAGMENTS, max_size=40).map("".join), st.text(max_size=60))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(file=st.sampled_from(["a.csv", "manifest.csv", "manifest.yaml"]), text=TEXTS)
def test_any_text_is_refused_in_sentences_or_accepted(tmp_path_factory, file, text):
    root = corpus(tmp_path_factory.mktemp("fuzz") / "data")
    (root / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    inspection = inspect_manifest(root, deep=False)
    errors = [finding for finding in inspection.findings if finding.severity == "error"]
    assert_readable(errors, root)
    for clip in inspection.clips:
        labels = clip.read().labels
        assert labels.shape[0] == 4
        assert not np.isinf(labels).any()


KEYS = "words word text start end segments result monologues terms chunks timestamp folds left_out index train sha256"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*KEYS.split(), "validation"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_is_a_transcript_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "t.json"
    path.write_text(json.dumps(value))
    assert_readable(check_transcript(path, 10, path.parent), path.parent)


@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_is_a_file_of_folds_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "folds.json"
    path.write_text(json.dumps(value))
    clips = [
        ClipInfo(name=n, video=n, subject=n, partition=p, fps=4, frames=4)
        for n, p in (("a", "train"), ("b", "validation"))
    ]
    with pytest.raises(UserError):
        read_fold_file(path, clips)
