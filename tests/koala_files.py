"""Koala-36M in small: some 300 rows with all that is awkward about the published ones, and what becomes of each.

Filters: 20 to 120 s, clarity of 0.5 at least, motion up to 100, and no caption with "slideshow" in it (`PARAMETERS`).
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARAMETERS: dict[str, Any] = {
    "csv": "data/raw/koala/Koala_36M_*.csv",
    "min_clarity": 0.5,
    "max_motion": 100.0,
    "without_words": ("slideshow",),
}
COLUMNS = (
    *("videoID", "url", "timestamp", "caption"),
    *("clarity_score", "aesthetic_score", "motion_score", "video_training_suitability_score"),
)
SOUND = {
    "timestamp": "['0:01:00.500', '0:01:30.500']",
    "caption": "A cyclist overtakes a bus while a woman crosses the street.",
    "clarity_score": "0.8033033311367035",
    "aesthetic_score": "4.31815",
    "motion_score": "9.053077697753906",
    "video_training_suitability_score": "3.5",
}
PASSED = "passed"
"""Fate of a row that no filter leaves out."""


def youtube_id(number: int) -> str:
    """An id of 11 characters; many hold or begin with "_" or "-"."""
    return ("_a-", "-b_", "Ab0", "9__", "---")[number % 5] + f"{number:07d}" + "_-Xz"[number % 4]


def hms(seconds: float) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02d}:{seconds % 60:06.3f}"


def timestamp(start: float, end: float) -> str:
    return str([hms(start), hms(end)])


@dataclass
class Koala:
    """CSV files in the making."""

    rows: list[tuple[str, bytes]] = field(default_factory=list)
    """Fate of each row, and its bytes."""

    def add(self, fate: str, number: int, **changes: str) -> str:
        """A row of video `number`; returns its videoID."""
        name = youtube_id(number)
        row = {"videoID": f"{name}_{number}", "url": f"https://www.youtube.com/watch?v={name}", **SOUND, **changes}
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row[column] for column in COLUMNS])
        self.rows.append((fate, text.getvalue().encode()))
        return row["videoID"]

    def add_raw(self, fate: str, line: bytes) -> None:
        self.rows.append((fate, line))

    def fates(self) -> Counter[str]:
        return Counter(fate for fate, _ in self.rows)

    def write(self, folder: Path, files: int = 3) -> None:
        """Write them in turns into files with a BOM."""
        folder.mkdir(parents=True, exist_ok=True)
        header = b"\xef\xbb\xbf" + ",".join(COLUMNS).encode() + b"\n"
        for file in range(files):
            lines = [line for _, line in self.rows[file::files]]
            (folder / f"Koala_36M_{file + 1}.csv").write_bytes(header + b"".join(lines))


CAPTIONS = (
    'A man says "stop", and a dog,\na red one, runs',
    'Lines\r\nof "all" kinds,\n\nwith\rreturns',
    "Ein Hund läuft; 一只狗在跑; كلب يركض; 🐕‍🦺 बच्चा",
    "A NUL \0 in the middle, and \ufffd",
    "'single', `back`, \\\"escaped\\\", <script>alert(1)</script>",
    "word " * 60_000,
    ",,,,,,,",
    '"',
    "=HYPERLINK(1)",
    "cC-Q5kcc3R8_27,https://is.not/a/row",
)


def caption_of(number: int) -> str:
    """Caption of a sound row of `awkward`, the first 120."""
    return CAPTIONS[number % len(CAPTIONS)] if number % 2 else SOUND["caption"]


def awkward() -> Koala:
    """All of it."""
    koala = Koala()
    for number in range(120):
        koala.add(PASSED, number, caption=caption_of(number))
    bad_times = [
        *("", "[]", "['0:00:05.000']", "['0:00:50', '0:00:05']", "['0:00:05', '0:00:05']", "['-0:00:05', '0:00:30']"),
        *("0:00:05 - 0:00:30", "['0:75:05', '1:20:30']", "[5.0, 30.0]", "None", "['a', 'b']", "['0:00:05', '0:00:30'"),
        *("[['0:00:05', '0:00:30'], ['0:01:05', '0:01:30']]", "__import__('os')", "['0:00:05', '0:00:30', '0:00:40']"),
        "['0:00:nan', '0:00:inf']",
    ]
    good_times = [
        *("['0:00:05', '0:00:30']", '["0:00:05.1", "0:00:30.25"]', "[0:00:05.000,0:00:30.000]"),
        *("[['0:00:05.000', '0:00:30.000']]", " [ '10:00:05.999' , '10:01:05.999' ] ", "['0:0:5', '0:0:30.']"),
        *("['0:00:10.000', '0:00:30.000']", "['0:00:10.007', '0:02:10.007']"),
    ]
    for k, text in enumerate(bad_times):
        koala.add("malformed, timestamp", 200 + k, timestamp=text)
    for k, text in enumerate(good_times):
        koala.add(PASSED, 250 + k, timestamp=text)
    for k in range(40):
        koala.add("filtered, duration", 300 + k, timestamp=timestamp(k, k + (19.999 if k % 2 else 120.001)))
    for k, text in enumerate(["0.4999", "", "nan", "none", "-1", "0,9", "1e-3"]):
        koala.add("filtered, clarity", 400 + k, clarity_score=text)
    for k, text in enumerate(["0.5", "1", "9e-1", " 0.75 ", "inf"]):
        koala.add(PASSED, 420 + k, clarity_score=text)
    for k, text in enumerate(["100.01", "267", "", "inf"]):
        koala.add("filtered, motion", 440 + k, motion_score=text)
    for k, text in enumerate(["A slideshow.", "SlideShow\nof cats", '"slideshow"', "a,slideshow,b", "狗 slideshow"]):
        koala.add("filtered, without_words", 460 + k, caption=text)
    for k, text in enumerate(["Two slideshows", "slideshow_1", "A slide show", ""]):
        koala.add(PASSED, 480 + k, caption=text)
    # Both too long and unclear: the first filter's.
    koala.add("filtered, duration", 490, timestamp=timestamp(0, 500), clarity_score="0", caption="slideshow")
    bad_ids = ["", "cC-Q5kcc3R8", "cC-Q5kcc3R8_", "cC-Q5kcc3R_1", "cC-Q5kcc3R88_1", "../../etc_1", "cC-Q5kcc3R8_1_"]
    for k, text in enumerate([*bad_ids, "\uff41C-Q5kcc3R8_1"]):
        koala.add("malformed, videoID", 500 + k, videoID=text)
    koala.add(PASSED, 520, videoID=f" {youtube_id(520)}_00520 ")
    koala.add("malformed, url", 521, url="https://www.youtube.com/watch?v=cC-Q5kcc3R8")
    koala.add(PASSED, 522, url="")
    koala.add(PASSED, 523, url=f"https://youtu.be/{youtube_id(523)}?t=60")
    for k in range(30):
        number = 550 + k // 3
        koala.add(PASSED, number, videoID=f"{youtube_id(number)}_{k}", timestamp=timestamp(40 * k, 40 * k + 30))
    for k in range(10):
        koala.add("duplicate", k, caption=caption_of(k))
    sound = ",".join([f"{youtube_id(600)}_600", "", '"' + timestamp(5, 30) + '"', "A dog runs", "0.9", "4", "9", "3"])
    koala.add_raw(PASSED, sound.encode() + b"\r\n")
    koala.add_raw("malformed, fields", sound.replace("600_", "601_").encode() + b",more\n")
    koala.add_raw("malformed, fields", b"a,b\n")
    koala.add_raw("malformed, fields", f"{youtube_id(602)}_602,".encode() + b'"' + b"x" * 1_100_000 + b'",,,,,,\n')
    koala.add_raw(PASSED, sound.replace("_600", "_603").encode().replace(b"dog", b"d\xff\xfeg") + b"\n")
    koala.add_raw("malformed, videoID", b"\0" * 30 + b",,,,,,,\n")
    # A quote that is never closed: it costs its row, not those after it.
    name = youtube_id(604)
    koala.add_raw("malformed, fields", f'{name}_604,https://youtu.be/{name},"never closed\n'.encode())
    for k in range(20):
        koala.add(PASSED, 610 + k)
    return koala
