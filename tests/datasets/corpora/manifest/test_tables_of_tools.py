"""Tables as tools write them: each row of each goes to its frame, or the table is refused with a reason."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossfold.datasets.corpora.manifest.reader import inspect_manifest
from tests.support.media import assert_readable

FRAMES, RATE = 40, 4.0
LEVEL = np.round(np.sin(np.arange(FRAMES) / 7), 4)
"""The right label, and the right first feature, of every frame."""
FRAME = np.arange(FRAMES)
ARFF = "@relation x\n@attribute name string\n@attribute frameTime numeric\n@attribute v numeric\n@data\n"
ALL = pd.DataFrame({"v": LEVEL})
SHUFFLED = np.random.default_rng(3).permutation(FRAMES)


def write_corpus(root: Path, labels=None, features=None) -> Path:
    """Two clips of features at 4 frames per second; the labels or the features of both are what is given."""
    for folder in ("f", "l"):
        (root / folder).mkdir(parents=True)
    label_suffix = labels[0] if labels else ".csv"
    feature_suffix = features[0] if features else ".npy"
    rows = ["clip,subject,partition,visual_features,labels,rate"]
    for clip, part in (("a", "train"), ("b", "validation")):
        (labels[1] if labels else put(ALL.to_csv(index=False)))(root / f"l/{clip}{label_suffix}")
        (features[1] if features else lambda path: np.save(path, np.c_[LEVEL, FRAME + 1.0]))(
            root / f"f/{clip}{feature_suffix}"
        )
        rows.append(f"{clip},s{clip},{part},f/{clip}{feature_suffix},l/{clip}{label_suffix},{RATE:g}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def put(text: str, encoding: str = "utf-8"):
    return lambda path: path.write_text(text, encoding=encoding)


def parquet(table: pd.DataFrame):
    return ".parquet", table.to_parquet


def csv(table: pd.DataFrame, **options):
    return ".csv", put(table.to_csv(index=options.pop("index", False), **options))


def spans(unit: float = 1.0, **names) -> pd.DataFrame:
    return pd.DataFrame({"start": FRAME / RATE * unit, "end": (FRAME + 1) / RATE * unit, "v": LEVEL}).rename(
        columns=names
    )


def by(column: str, values, **more) -> pd.DataFrame:
    return pd.DataFrame({column: values, "v": LEVEL, **more})


SECONDS, CLOCK = FRAME / RATE, pd.to_timedelta(FRAME / RATE, unit="s")
INDEXED = pd.DataFrame(
    {"v": LEVEL},
    index=pd.MultiIndex.from_arrays(
        [["a.wav"] * FRAMES, CLOCK, CLOCK + pd.Timedelta("250ms")], names=["file", "start", "end"]
    ),
)
LABELS = {
    "row by row": csv(ALL),
    "seconds": csv(by("time", SECONDS)),
    "seconds, shuffled": csv(by("time", SECONDS).iloc[SHUFFLED]),
    "MuSe: milliseconds, segment": csv(by("timestamp", FRAME * 250, segment_id=1)),
    "openSMILE: frameTime, semicolons": csv(by("frameTime", SECONDS, name="'unknown'"), sep=";"),
    "Time (s)": csv(by("Time (s)", SECONDS)),
    "time_ms": csv(by("time_ms", FRAME * 250)),
    "TimestampMs": csv(by("TimestampMs", FRAME * 250)),
    "time [us]": csv(by("time [us]", FRAME * 250_000)),
    "seconds as a name": csv(by("seconds", SECONDS)),
    "durations of pandas": csv(by("time", CLOCK.astype(str))),
    "clock times": csv(by("t", [f"00:00:{s:06.3f}" for s in SECONDS])),
    "durations in parquet": parquet(by("time", CLOCK)),
    "index of durations": parquet(ALL.set_index(pd.Index(CLOCK, name="time"))),
    "index of durations without a name": parquet(ALL.set_index(CLOCK)),
    "index of durations without a name in csv": csv(ALL.set_index(CLOCK), index=True),
    "index of frames, shuffled": parquet(ALL.set_index(pd.Index(FRAME, name="frame")).iloc[SHUFFLED]),
    "index without a name, shuffled": parquet(ALL.iloc[SHUFFLED]),
    "index without a name in csv": csv(ALL.iloc[SHUFFLED], index=True),
    "audformat, parquet": parquet(INDEXED),
    "audformat, csv": csv(INDEXED, index=True),
    "frames from 0": csv(by("frame", FRAME).iloc[SHUFFLED]),
    "frames from 1": csv(by("Frame_ID", FRAME + 1).iloc[SHUFFLED]),
    "frame and time": csv(by("frame", FRAME + 1, timestamp=SECONDS, confidence=0.98, success=1)),
    "spans": csv(spans()),
    "spans of ELAN": csv(spans(start="Begin Time - ss.msec", end="End Time - ss.msec"), sep="\t"),
    "spans of Praat": csv(spans(start="tmin", end="tmax", v="v")),
    "spans in ms": csv(spans(1000, start="start_ms", end="end_ms")),
    "onset and duration": csv(by("onset", SECONDS, duration=0.25)),
    "decimal commas and semicolons": csv(by("time", SECONDS), sep=";", decimal=","),
    "decimal commas and tabs": csv(by("time", SECONDS), sep="\t", decimal=","),
    "separator at every end": (".csv", put(by("time", SECONDS).to_csv(index=False, sep=";").replace("\n", ";\n"))),
    "separator at the ends of rows": (
        ".csv",
        put(by("time", SECONDS).to_csv(index=False, sep=";").replace("\n", ";\n").replace("v;", "v", 1)),
    ),
    "hint of a spreadsheet": (".csv", put("sep=;\n" + by("time", SECONDS).to_csv(index=False, sep=";"))),
    "header of numpy.savetxt": (".csv", put("# " + by("time", SECONDS).to_csv(index=False))),
    "header of numpy.savetxt, blanks": (".txt", put("# " + by("time", SECONDS).to_csv(index=False, sep=" "))),
    "columns of equal width": (".txt", put(by("time", SECONDS).to_string(index=False))),
    "bars": csv(by("time", SECONDS), sep="|"),
    "Unicode text of Excel": (".txt", put(by("time", SECONDS).to_csv(index=False, sep="\t", decimal=","), "utf-16")),
    "minus of typesetting": (".csv", put(by("time", SECONDS).to_csv(index=False).replace("-", "\u2212"))),
    "byte order mark, Windows ends": (".csv", put("\ufeff" + ALL.to_csv(index=False, lineterminator="\r\n"))),
    "names of rows that are text": csv(by("file", ["a.wav"] * FRAMES, time=SECONDS)),
    "arff": (".arff", put(ARFF + "".join(f"'unknown',{t},{v}\n" for t, v in zip(SECONDS, LEVEL, strict=True)))),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_reach_their_frames(tmp_path, kind):
    inspection = inspect_manifest(write_corpus(tmp_path / "data", LABELS[kind]), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    assert [target.name for target in inspection.targets] == ["v"]
    for clip in inspection.clips:
        np.testing.assert_allclose(clip.read().labels[:, 0], LEVEL, atol=1e-6)
    assert any(f.rule == "table-meaning" for f in inspection.findings)
    assert_readable(inspection.findings, tmp_path)


def test_labels_that_lack_the_first_frames_stay_where_they_are(tmp_path):
    table = by("frame", FRAME).query("frame >= 4").set_index("frame")
    inspection = inspect_manifest(write_corpus(tmp_path / "data", parquet(table)), deep=True)
    right = np.where(FRAME >= 4, LEVEL, np.nan)
    for clip in inspection.clips:
        np.testing.assert_allclose(clip.read().labels[:, 0], right, atol=1e-6)


REFUSED = {
    "no header": (".csv", put("".join(f"{v}\n" for v in LEVEL))),
    "no header, two columns": (".csv", put("".join(f"{t},{v}\n" for t, v in zip(SECONDS, LEVEL, strict=True)))),
    "no header, gap first": (".csv", put("nan\n" + "0.1\n" * 39)),
    "no header, names first": (".csv", put("".join(f"a.wav,{t},{v}\n" for t, v in zip(SECONDS, LEVEL, strict=True)))),
    "no header, decimal commas": (".csv", put("0,0;0,5\n" + "0,1;0,5\n" * 39)),
    "frames from 0 or from 1": csv(by("frame", FRAME + 1).head(38)),
    "frames in the column of time": csv(by("time", FRAME)),
    "dates": csv(by("timestamp", pd.date_range("2024-01-31", periods=FRAMES, freq="250ms"))),
    "dates as numbers": csv(by("frame", 20240131123000 + FRAME)),
    "seconds since 1970": csv(by("timestamp", 1706702400 + SECONDS)),
    "two times": csv(by("time", SECONDS, timestamp=SECONDS)),
    "two faces per frame": csv(by("frame", FRAME // 2, face_id=FRAME % 2)),
    "part of a frame": csv(by("frame", FRAME + 0.5)),
    "misspelt": csv(by("tiem", SECONDS)),
    "a clock of no known name": csv(by("Zeit", FRAME * 250)),
    "parquet with dates": parquet(by("time", pd.date_range("2024-01-31", periods=FRAMES, freq="250ms"))),
    "index of another table": parquet(ALL.set_index(pd.Index(FRAME + 5000))),
    "whole corpus in one table": csv(pd.concat([by("time", SECONDS)] * 2)),
    "a cell of two million characters": (".csv", put("v\n" + "1" * 2_000_000 + "\n")),
    "columns without end": (".csv", put(",".join(f"c{i}" for i in range(100_000)) + "\n")),
    "blanks, no header": (".txt", put("".join(f"{t} {v}\n" for t, v in zip(SECONDS, LEVEL, strict=True)))),
    "UTF-16 without its mark": (".csv", put(by("time", SECONDS).to_csv(index=False), "utf-16-le")),
    "UTF-32": (".csv", put(by("time", SECONDS).to_csv(index=False), "utf-32")),
    "JSON": (".json", put(by("time", SECONDS).to_json(orient="records"))),
    "a page that asks for a login": (".csv", put("<!DOCTYPE html>\n<html><body>Log in</body></html>\n")),
    "a workbook": (".xlsx", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(200)))),
    "a workbook of 1997": (".csv", lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(range(200)))),
    "nothing but a clock": csv(pd.DataFrame({"time": SECONDS})),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_without_a_sure_place_are_refused(tmp_path, kind):
    inspection = inspect_manifest(write_corpus(tmp_path / "data", REFUSED[kind]), deep=True)
    errors = [f for f in inspection.findings if f.severity == "error"]
    assert any(f.file.startswith("l/a") for f in errors)
    assert all(f.file.startswith("l/") for f in errors)  # and nothing is said to be missing that is there
    assert_readable(inspection.findings, tmp_path)


WIDE = pd.DataFrame({"AU01": LEVEL, "AU02": FRAME + 1.0})
FEATURES = {
    "frame, shuffled": parquet(WIDE.assign(frame=FRAME).iloc[SHUFFLED]),
    "index of frames, shuffled": parquet(WIDE.set_index(pd.Index(FRAME, name="frame")).iloc[SHUFFLED]),
    "index without a name, shuffled": parquet(WIDE.iloc[SHUFFLED]),
    "OpenFace": csv(
        pd.concat(
            [
                pd.DataFrame(
                    {"frame": FRAME + 1, " face_id": 0, " timestamp": SECONDS, " confidence": 0.98, " success": 1}
                ),
                WIDE.add_prefix(" "),
            ],
            axis=1,
        ).iloc[SHUFFLED]
    ),
    "openSMILE": csv(pd.concat([pd.DataFrame({"name": "'x'", "frameTime": SECONDS}), WIDE], axis=1), sep=";"),
    "MuSe": csv(pd.concat([pd.DataFrame({"timestamp": FRAME * 250, "segment_id": 1}), WIDE], axis=1)),
    "py-feat": csv(pd.concat([WIDE, pd.DataFrame({"input": "a.mp4", "frame": FRAME, "approx_time": "00:00"})], axis=1)),
    "audformat": parquet(WIDE.set_index(INDEXED.index).iloc[SHUFFLED]),
    "stamped in the middle": parquet(WIDE.assign(time=SECONDS + 0.5 / RATE)),
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_reach_their_frames(tmp_path, kind):
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=FEATURES[kind]), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    for clip in inspection.clips:
        np.testing.assert_allclose(clip.read().features["visual"], np.c_[LEVEL, FRAME + 1.0], atol=1e-6)


@pytest.mark.parametrize("unit", ["frameTime", "time_ms"])
def test_a_frame_has_the_mean_of_the_rows_that_begin_in_it(tmp_path, unit):
    """OpenSMILE writes a row every 10 ms; those of nothing but zeros, as where it failed, do not count."""
    each = 10
    table = pd.DataFrame(np.repeat(WIDE.to_numpy(float), each, axis=0), columns=list(WIDE.columns))
    table.iloc[:, 1] += np.tile(np.linspace(-4.5, 4.5, each), FRAMES)
    table.iloc[each : 2 * each] = 0.0
    table.iloc[2 * each] = 0.0
    times = np.round(np.arange(len(table)) / (RATE * each), 4)
    table.insert(0, unit, times * (1000 if unit.endswith("ms") else 1))
    shuffled = table.sample(frac=1, random_state=0)
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=csv(shuffled, sep=";")), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    arrays = inspection.clips[0].read()
    expected = np.c_[LEVEL, FRAME + 1.0]
    expected[1] = 0.0
    expected[2, 1] += 0.5  # of nine rows, without the first of them
    np.testing.assert_allclose(arrays.features["visual"], expected, atol=1e-5)
    assert np.flatnonzero(~arrays.present["visual"]).tolist() == [1]


PY_FEAT = "FaceRectX,FaceScore,AU01,Identity,input,frame,approx_time\n"
OPENFACE = "frame, face_id, timestamp, confidence, success, pose_Tx, AU01_r\n"
WITHOUT_A_FACE = {
    "py-feat, box of zeros": (PY_FEAT, "1,0.9,{v},Person_0,a.mp4,{f},00:00\n", "0,0.0,,,a.mp4,{f},00:00\n"),
    "py-feat, no box": (PY_FEAT, "1,0.9,{v},Person_0,a.mp4,{f},00:00\n", ",,,,a.mp4,{f},00:00\n"),
    "OpenFace": (OPENFACE, "{n}, 0, {t:.3f}, 0.98, 1, 1, {v}\n", "{n}, 0, {t:.3f}, 0.02, 0, 0.3, 0.7\n"),
    "OpenFace of Windows": (OPENFACE, "{n}, 0, {t:.3f}, 0.98, 1, 1, {v}\n", "{n}, 0, {t:.3f}, 0, 0, -nan(ind), 0\n"),
}
"""Header, the row of a frame with a face, and that of one without, as the tools write them."""


@pytest.mark.parametrize("kind", WITHOUT_A_FACE)
def test_a_frame_in_which_a_tool_found_no_face_is_absent(tmp_path, kind):
    header, found, lost = WITHOUT_A_FACE[kind]
    text = header + "".join(
        (lost if f in (3, 17) else found).format(f=f, n=f + 1, t=f / RATE, v=LEVEL[f]) for f in FRAME
    )
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=(".csv", put(text))), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    arrays = inspection.clips[0].read()
    there = arrays.present["visual"]
    assert np.flatnonzero(~there).tolist() == [3, 17]
    np.testing.assert_allclose(arrays.features["visual"][there], np.c_[np.ones(FRAMES), LEVEL][there], atol=1e-6)


def test_frames_that_a_table_of_features_lacks_are_absent(tmp_path):
    table = WIDE.assign(frame=FRAME).query("frame not in (3, 17)").iloc[::-1]
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=parquet(table)), deep=True)
    arrays = inspection.clips[0].read()
    assert np.flatnonzero(~arrays.present["visual"]).tolist() == [3, 17]
    np.testing.assert_allclose(arrays.features["visual"][arrays.present["visual"], 1], np.delete(FRAME + 1.0, [3, 17]))


@pytest.mark.parametrize(
    "table",
    [
        WIDE.assign(frame=FRAME + 1),
        WIDE.assign(frame=FRAME // 2),
        WIDE.assign(time=FRAME * 0.5),
        WIDE.assign(frame=FRAME + 0.5),
        WIDE.assign(frame=20240131123000 + FRAME),
        WIDE.assign(frame=FRAME, time=-SECONDS),
        WIDE.assign(label="happy"),
    ],
    ids=["0 or 1", "twice", "another rate", "half a frame", "dates", "contradiction", "text"],
)
def test_features_without_a_sure_place_are_refused(tmp_path, table):
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=parquet(table)), deep=True)
    assert ("f/a.parquet", "features-readable") in [(f.file, f.rule) for f in inspection.findings]


@pytest.mark.parametrize("suffix", [".tsv", ".txt"])
def test_features_may_be_text_under_other_names(tmp_path, suffix):
    text = WIDE.to_csv(index=False, sep="\t" if suffix == ".tsv" else " ")
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=(suffix, put(text))), deep=True)
    assert [f for f in inspection.findings if f.severity == "error"] == []
    for clip in inspection.clips:
        np.testing.assert_allclose(clip.read().features["visual"], np.c_[LEVEL, FRAME + 1.0], atol=1e-6)


def test_features_of_two_faces_are_refused_for_what_they_are(tmp_path):
    twice = WIDE.assign(timestamp=FRAME // 2 / RATE)
    inspection = inspect_manifest(write_corpus(tmp_path / "data", features=csv(twice)), deep=True)
    assert any("several rows at one time by timestamp" in f.problem for f in inspection.findings)
