"""Words with times: every layout of transcripts, damaged ones, and words on exactly their frames."""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold.datasets.corpora.affwild2.reader import inspect_affwild2
from crossfold.datasets.corpora.media_checks import check_transcript
from crossfold.datasets.media.transcripts import Word, read_transcript, write_transcript
from crossfold.datasets.media.word_features import punctuated, sentences, text_features, words_on_frames
from crossfold.platform.core.errors import DataError
from tests.support.media import write_corpus

WORDS = (Word("good", 0.1, 0.35), Word("morning", 0.35, 0.9), Word("all", 2.0, 2.2))
ENTRIES = [{"word": w.text, "start": w.start, "end": w.end} for w in WORDS]
VOSK = [entry | {"conf": 0.9} for entry in ENTRIES]
LAYOUTS = {
    "words.json": json.dumps({"words": ENTRIES}),
    "list.json": json.dumps(ENTRIES),
    "vosk.json": json.dumps({"result": VOSK, "text": "good morning all"}),
    "vosk-list.json": json.dumps([{"text": ""}, {"result": VOSK[:2], "text": "good morning"}, {"result": VOSK[2:]}]),
    "vosk-lines.json": "\n".join(
        json.dumps(answer) for answer in ({"result": VOSK[:2]}, {"text": ""}, {"result": VOSK[2:]})
    ),
    "transcriber.json": json.dumps(
        {
            "schemaVersion": "2.0",
            "monologues": [
                {
                    "start": 0.1,
                    "end": 2.2,
                    "terms": [{"text": w.text, "start": w.start, "end": w.end, "type": "WORD"} for w in WORDS],
                }
            ],
        }
    ),
    "whisper.json": json.dumps(
        {
            "text": "x",
            "segments": [
                {"text": "a", "start": 0, "end": 1, "words": [e | {"word": " " + e["word"]} for e in ENTRIES[:2]]},
                {"text": "b", "start": 2, "end": 3, "words": ENTRIES[2:]},
            ],
        }
    ),
    "table.csv": "word,start,end\n" + "".join(f"{w.text},{w.start},{w.end}\n" for w in WORDS),
    "semicolons.csv": "start;end;word;confidence\n" + "".join(f"{w.start};{w.end};{w.text};1\n" for w in WORDS),
    "shuffled.csv": "word,start,end\n" + "".join(f"{w.text},{w.start},{w.end}\n" for w in WORDS[::-1]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_of_transcripts_gives_the_same_words(tmp_path, name):
    (tmp_path / name).write_text(LAYOUTS[name])
    assert read_transcript(tmp_path / name) == WORDS


@pytest.mark.parametrize("text", ["", '{"words": []}', '{"text": ""}', '[{"text": ""}, {"text": ""}]', "[]"])
def test_silence_is_a_transcript_without_words(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    assert read_transcript(tmp_path / "t.json") == ()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.json", '{"words": [{"word": "a", "start": 1}]}', "word 1 has no 'end'"),
        ("t.json", '{"words": [{"start": 1, "end": 2}]}', "word 1 has no 'word'"),
        ("t.json", '{"words": [{"word": "a", "start": 2, "end": 1}]}', "word 1 word 'a' from 2 to 1 s"),
        ("t.json", '{"words": [{"word": "a", "start": -1, "end": 1}]}', "from -1 to 1 s"),
        ("t.json", '{"words": [{"word": "a", "start": NaN, "end": 1}]}', "from nan to 1 s"),
        ("t.json", '{"words": [{"word": " ", "start": 0, "end": 1}]}', "without letters"),
        ("t.json", '{"words": [{"word": 7, "start": 0, "end": 1}]}', "7, not text"),
        ("t.json", '{"words": ["a"]}', "'a', not an entry"),
        ("t.json", '{"sentences": []}', "holds no transcript"),
        ("t.json", '{"words": [', "is not JSON"),
        ("t.json", "3", "holds no transcript"),
        ("t.csv", "begin,end,word\n0,1,a\n", "its first line lacks start"),
        ("t.tsv", "start\tend\ttext\n0\t2400\tGood morning\n", "its first line lacks word"),
        ("t.txt", "Good morning\n", "its first line lacks end, start, word"),
        ("t.srt", "1\n00:00:00,100 --> 00:00:02,400\nGood morning\n", "times of subtitles, not of words"),
        ("t.vtt", "WEBVTT\n\n00:00.100 --> 00:02.400\nGood morning\n", "times of subtitles, not of words"),
        ("t.csv", "word,start,end\na,zero,1\n", "word 1 could not convert"),
        ("t.csv", "word,start,end\na,0\n", "word 1 has no 'end'"),
    ],
)
def test_a_damaged_transcript_is_named_with_its_entry(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as raised:
        read_transcript(tmp_path / name)
    assert says in raised.value.problem
    assert str(tmp_path / name) in raised.value.problem
    (finding,) = check_transcript(tmp_path / name, 10, tmp_path)
    assert (finding.severity, finding.rule, finding.file) == ("error", "transcript-readable", name)


SENTENCES = [
    {"start": 0.0, "end": 2.4, "text": " Good morning everyone."},
    {"start": 4, "end": 6.5, "text": " It rained."},
]
WITHOUT_WORD_TIMES = {
    "Whisper": json.dumps({"text": "x", "segments": SENTENCES, "language": "en"}),
    "Whisper in Chinese": json.dumps({"segments": [{"start": 0, "end": 2, "text": "早上好"}]}),
    "Whisper, one word a segment": json.dumps({"segments": [{"start": 0, "end": 2, "text": " Yes."}]}),
    "list of sentences": json.dumps(SENTENCES),
    "sentences as words": json.dumps(
        {"words": [{"word": s["text"], "start": s["start"], "end": 9} for s in SENTENCES]}
    ),
    "sentences in lines": "\n".join(json.dumps(sentence) for sentence in SENTENCES),
    "Transformers": json.dumps({"chunks": [{"text": " Good morning.", "timestamp": [0, 2.5]}]}),
    "monologues of one term": json.dumps({"monologues": [{"terms": [SENTENCES[0]]}]}),
    "csv": "start,end,word\n0,2.4,Good morning everyone.\n",
    "csv with tabs": "start\tend\tword\n0\t2.4\tGood morning everyone.\n",
}


@pytest.mark.parametrize("kind", WITHOUT_WORD_TIMES)
def test_sentences_are_not_taken_for_words(tmp_path, kind):
    path = tmp_path / ("t.csv" if kind.startswith("csv") else "t.json")
    path.write_text(WITHOUT_WORD_TIMES[kind], encoding="utf-8")
    (finding,) = check_transcript(path, 10, tmp_path)
    assert (finding.severity, "has no word times" in finding.problem) == ("error", True)


IMPERFECT = [
    {"word": "2014"},
    {"word": "2014", "start": None, "end": None},
    {"word": "2014", "start": 0.2},
    {"word": "2014", "start": float("nan"), "end": 0.3},
    {"word": "2014", "start": "", "end": ""},
    {"word": " ", "start": 0.2, "end": 0.3},
    {"word": None, "start": 0.2, "end": 0.3},
    {"word": "x", "start": 0.9, "end": 0.3},
    {"word": "x", "start": -7, "end": 0.3},
    {"word": "x", "start": 10**400, "end": 0.3},
    {"start": 0.2, "end": 0.3},
    {"text": "And so on", "start": [0], "end": {}},
    "2014",
]


@pytest.mark.parametrize("entry", IMPERFECT, ids=str)
def test_single_entries_without_a_time_are_left_out_and_counted(tmp_path, entry):
    (tmp_path / "t.json").write_text(json.dumps({"segments": [{"words": [ENTRIES[0], entry, *ENTRIES[1:]]}]}))
    assert read_transcript(tmp_path / "t.json") == WORDS
    (finding,) = check_transcript(tmp_path / "t.json", 10, tmp_path)
    assert (finding.severity, finding.rule) == ("warning", "transcript-word")
    assert f"1 of {len(WORDS) + 1} entries" in finding.problem


def test_a_segment_that_could_not_be_aligned_is_left_out(tmp_path):
    segments = [{"start": 0, "end": 2, "text": "x", "words": ENTRIES}, SENTENCES[1]]
    (tmp_path / "t.json").write_text(json.dumps({"segments": segments, "word_segments": []}))
    assert read_transcript(tmp_path / "t.json") == WORDS
    assert [f.rule for f in check_transcript(tmp_path / "t.json", 10, tmp_path)] == ["transcript-word"]


@pytest.mark.parametrize(("start", "end", "word"), [(-0.02, 0.4, (0, 0.4)), (0.5, 0.48, (0.5, 0.5))])
def test_times_that_a_recogniser_rounded_are_kept(tmp_path, start, end, word):
    (tmp_path / "t.json").write_text(json.dumps([{"word": "a", "start": start, "end": end}]))
    assert read_transcript(tmp_path / "t.json") == (Word("a", *word),)
    assert check_transcript(tmp_path / "t.json", 10, tmp_path) == []


def test_word_times_of_transformers_and_decimal_commas(tmp_path):
    chunks = [{"text": f" {w.text}", "timestamp": [w.start, w.end]} for w in WORDS]
    (tmp_path / "t.json").write_text(json.dumps({"text": "x", "chunks": chunks}))
    assert read_transcript(tmp_path / "t.json") == WORDS
    rows = "".join(f"{w.text};{w.start};{w.end}\n".replace(".", ",") for w in WORDS)
    (tmp_path / "t.csv").write_text(f"word;start;end\n{rows}")
    assert read_transcript(tmp_path / "t.csv") == WORDS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", "[" * 100_000),
        ("t.json", "[" * 100_000 + "]" * 100_000),
        ("t.json", '{"words": ' * 5000 + "[]" + "}" * 5000),
        ("t.json", '[{"word": "a", "start": ' + "9" * 5000 + ', "end": 1}]'),
        ("t.csv", "word,start,end\n" + "a" * 2_000_000 + ",0,1\n"),
        ("t.csv", 'word,start,end\n"a,0,1\n' + "a,0,1\n" * 300_000),
    ],
    ids=["open", "nested", "objects", "digits", "cell", "quote"],
)
def test_what_would_crash_a_parser_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    (finding,) = check_transcript(tmp_path / name, 10, tmp_path)
    assert (finding.severity, finding.rule) == ("error", "transcript-readable")


@pytest.mark.parametrize("name", ["whisper.json", "excel.csv", "excel.txt", "bars.csv", "tabs.tsv"])
def test_what_other_programs_save_as_text(tmp_path, name):
    """A terminal of Windows that redirects JSON, a spreadsheet that saves Unicode text, and cells apart by bars."""
    if name.endswith(".json"):
        text = json.dumps({"words": [{"word": w.text, "start": w.start, "end": w.end} for w in WORDS]})
    else:
        part = "|" if "bars" in name else "\t"
        rows = [["Word", "Start", "End"], *([w.text, f"{w.start}", f"{w.end}".replace(".", ",")] for w in WORDS)]
        text = "\r\n".join(part.join(row) for row in rows)
    (tmp_path / name).write_text(
        text, encoding="utf-16" if "excel" in name or "whisper" in name else "utf-8", newline=""
    )
    assert read_transcript(tmp_path / name) == WORDS


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.json").write_bytes(b"\xff\xfe\x00\x9f")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_transcript(tmp_path / "t.json")


def test_a_transcript_of_another_recording_is_an_error_and_a_late_word_a_warning(tmp_path):
    write_transcript(tmp_path / "t.json", WORDS)
    assert check_transcript(tmp_path / "t.json", 2.5, tmp_path) == []
    (late,) = check_transcript(tmp_path / "t.json", 0.9, tmp_path)
    assert late.severity == "warning"
    milliseconds = [Word(word.text, 1000 * word.start, 1000 * word.end) for word in WORDS]
    write_transcript(tmp_path / "t.json", milliseconds)
    (wrong,) = check_transcript(tmp_path / "t.json", 2.5, tmp_path)
    assert wrong.severity == "error"
    assert "not in seconds" in wrong.remedy


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_categories=("Cs", "Zs", "Cc")), min_size=1).filter(str.strip),
            st.floats(0, 1e4),
            st.floats(0, 100),
        )
    )
)
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    words = sorted((Word(t.strip(), start, start + span) for t, start, span in rows), key=lambda w: (w.start, w.end))
    path = tmp_path_factory.mktemp("t") / "t.json"
    write_transcript(path, words)
    assert list(read_transcript(path)) == words


class Positions:
    """Encodes word i of a recording as (i + 1, number of words)."""

    width = 2

    def encode(self, words):
        return np.array([(index + 1, len(words)) for index in range(len(words))], np.float32).reshape(-1, 2)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30)])
@pytest.mark.parametrize("digits", [3, 9])
def test_planted_words_stand_on_exactly_their_frames(rate, digits):
    """Words cut at frame borders, an hour into the video, in transcripts rounded to milliseconds or not at all."""
    borders = [0, 3, 4, 30, 31, 80_000, 80_007, 80_008]
    times = np.arange(80_010) / float(rate)
    words = [
        Word(f"w{number}", round(float(a / rate), digits), round(float(b / rate), digits))
        for number, (a, b) in enumerate(zip(borders[::2], borders[1::2], strict=True))
    ]
    features, present = text_features(words, times, Positions())
    expected = np.zeros(len(times))
    for number, (a, b) in enumerate(zip(borders[::2], borders[1::2], strict=True)):
        expected[a:b] = number + 1
    np.testing.assert_array_equal(features[:, 0], expected)
    np.testing.assert_array_equal(present, expected > 0)


def test_words_follow_the_times_of_frames_that_are_not_even():
    times = np.array([0.0, 0.04, 0.5, 0.54, 2.0])
    assert words_on_frames([Word("a", 0.04, 0.52), Word("b", 0.53, 3.0)], times).tolist() == [-1, 0, 0, 1, 1]


def test_of_overlapping_words_the_one_that_began_last_has_the_frame():
    words = [Word("short", 0.2, 0.4), Word("long", 0.0, 1.0)]
    assert words_on_frames(words, np.arange(6) / 5).tolist() == [1, 0, 1, 1, 1, -1]


def test_a_word_between_two_frames_has_the_one_in_which_it_is_said_if_that_is_free():
    times = np.arange(5) / 25
    assert words_on_frames([Word("I", 0.045, 0.07)], times).tolist() == [-1, 0, -1, -1, -1]
    assert words_on_frames([Word("am", 0.0, 0.045), Word("I", 0.05, 0.07)], times).tolist() == [0, 0, -1, -1, -1]
    assert words_on_frames([Word("late", 0.17, 0.18), Word("after", 0.25, 0.26)], times).tolist() == [-1] * 4 + [0]


def naive_owner(words, times):
    """Frame by frame, word by word; what is shown between two frames aside."""
    owner = []
    for time in times:
        said = [(w.start, w.end, i) for i, w in enumerate(words) if w.start - 0.0005 <= time < w.end - 0.0005 and w.end]
        owner.append(max(said)[2] if said else -1)
    return owner


@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(11, 90)), max_size=12, unique_by=lambda row: row[0]),
    st.sampled_from([25.0, 30000 / 1001, 12.5]),
)
def test_frames_agree_with_a_naive_search(rows, fps):
    words = [Word("x", start / 100, (start + span) / 100) for start, span in rows]
    times = np.arange(160) / fps
    assert words_on_frames(words, times).tolist() == naive_owner(words, times)


def test_no_words_and_no_frames():
    features, present = text_features([], np.arange(4) / 25, Positions())
    assert (features.shape, features.any(), present.any()) == ((4, 2), False, False)
    assert text_features([Word("a", 0, 1)], np.zeros(0), Positions())[0].shape == (0, 2)


def test_words_without_a_frame_are_context_for_the_others():
    features, _ = text_features([Word("a", 0.0, 0.04), Word("after the end", 9, 9.5)], np.arange(2) / 25, Positions())
    assert features[0].tolist() == [1, 2]


def test_sentences_end_with_their_marks():
    assert sentences(["I", "am.", "You", 'are?"', "and", "so", "on"]) == [range(2), range(2, 4), range(4, 7)]
    assert sentences(["one", "two"]) == [range(2)]
    assert sentences(["Done."]) == [range(1)]
    assert sentences([]) == []


def test_punctuation_leaves_times_and_may_only_add_marks():
    marked = punctuated(WORDS, lambda words: [words[0], words[1].capitalize() + ".", *words[2:]])
    assert [word.text for word in marked] == ["good", "Morning.", "all"]
    assert [(word.start, word.end) for word in marked] == [(word.start, word.end) for word in WORDS]
    with pytest.raises(ValueError, match="3 words into 2"):
        punctuated(WORDS, lambda words: words[1:])
    with pytest.raises(ValueError, match="'all' into 'some'"):
        punctuated(WORDS, lambda words: [*words[:2], "some"])


def test_a_corpus_in_the_wild_finds_its_transcripts(tmp_path):
    root = write_corpus(
        tmp_path / "data", clips={"t0_left": "Train_Set", "t1": "Train_Set", "v0": "Validation_Set"}, frames=10
    )
    write_transcript(root / "batch1" / "transcripts" / "t0.json", WORDS[:1])
    (root / "transcripts").mkdir()
    (root / "transcripts" / "v0.csv").write_text("word,start,end\nhm,0.1,0.2\n")
    found = {clip.info.name: clip.transcript for clip in inspect_affwild2(root, deep=False).clips}
    assert found == {
        "t0_left": root / "batch1" / "transcripts" / "t0.json",
        "t1": None,
        "v0": root / "transcripts" / "v0.csv",
    }
    (root / "transcripts" / "v0.csv").write_text("words\n")
    assert "transcript-readable" in {finding.rule for finding in inspect_affwild2(root, deep=False).findings}
