"""The cues stage: what it makes, keeps, removes and reports, and what a kill or a bad clip costs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsr.console import StageError
from dsr.cues import extract, store
from dsr.cues.clips import Clip
from dsr.cues.schema import read_cues
from dsr.params import CueNoise, Cues, Params, SimulatedCues
from tests.cues.worlds import Project, walk

SMALL = Params(cues=Cues(num_frames=8, point_map_size=(4, 6)))
MISBEHAVING = replace(SMALL, cues=replace(SMALL.cues, backend="annotated"))
"""For a test that puts another backend in the place of `annotated`."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setitem(extract.BACKENDS, "annotated", "tests.cues.misbehaving")
    return MISBEHAVING


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def times(folder: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in folder.glob("*.npz")}


def manifest(project: Project) -> dict[str, dict[str, object]]:
    return store.read_manifest(project.cues)["clips"]


def test_one_and_two_workers_write_the_same_bytes(project: Project) -> None:
    for k in range(6):
        project.add(f"clip-{k}")
    extract.run(SMALL, project.root, workers=1)
    one = content(project.cues)
    assert sorted(one) == [*(f"clip-{k}.npz" for k in range(6)), "manifest.json"]
    shutil.rmtree(project.cues)
    extract.run(SMALL, project.root, workers=2)
    assert content(project.cues) == one


def test_the_file_says_what_it_was_made_from(project: Project) -> None:
    project.add("clip")
    extract.run(SMALL, project.root, workers=1)
    cues = read_cues(project.cues / "clip.npz")
    assert cues.num_frames == 8
    assert cues.point_map.shape == (8, 4, 6, 3)
    meta = cues.meta
    assert (meta["clip_id"], meta["sha256"]) == ("clip", project.rows["clip"]["sha256"])
    assert (meta["width"], meta["height"]) == (320, 240)
    assert (meta["num_tracks"], meta["num_agents"]) == (cues.num_tracks, cues.is_agent.sum())
    assert meta["identity"]["backend"] == "simulated"
    assert meta["identity"]["params"]["noise"] == {"depth": 0.02, "pose": 0.002, "angle": 4.0, "missed": 0.02}
    row = manifest(project)["clip"]
    assert row == {"status": "ok", "reason": "", "key": meta["key"], "tracks": cues.num_tracks, "left_out": 0}


def test_one_clip_more_computes_one_clip(project: Project) -> None:
    save, project.save = project.save, lambda: None  # type: ignore[method-assign]
    for k in range(200):
        project.add(f"clip-{k:03}")
    save()
    extract.run(SMALL, project.root)
    before = times(project.cues)
    assert len(before) == 200

    project.add("clip-new")
    save()
    extract.run(SMALL, project.root)
    after = times(project.cues)
    assert {name for name in after if after[name] != before.get(name)} == {"clip-new"}

    project.remove("clip-007")
    save()
    extract.run(SMALL, project.root)
    assert set(times(project.cues)) == set(after) - {"clip-007"}
    assert all(time == after[name] for name, time in times(project.cues).items())
    assert "clip-007" not in manifest(project)
    assert "clip-new" in manifest(project)


def test_what_a_key_depends_on(project: Project) -> None:
    project.add("clip")
    (clip,) = extract.read_clips(project.root)

    def key(clip: Clip = clip, **changes: object) -> str:
        backend = extract.make_backend(replace(SMALL.cues, **changes))
        return store.clip_key(clip, backend.identity(clip))

    quiet = SimulatedCues(noise=CueNoise(depth=0.0))
    different = {
        key(),
        key(num_frames=9),
        key(point_map_size=(4, 7)),
        key(simulated=quiet),
        key(simulated=SimulatedCues(seed=2)),
        key(replace(clip, end=1.0)),
        key(replace(clip, sha256="1" * 64)),
        key(replace(clip, clip_id="other")),
    }
    project.add("clip", walk(seed=9))
    different.add(key())
    assert len(different) == 9
    # Where a clip lies, and how many failures the stage bears, is no part of what its cues are.
    assert key(replace(clip, video=Path("/elsewhere/clip.mp4")), max_clips_failed=3) == key()


def test_a_changed_parameter_makes_every_clip_again(project: Project) -> None:
    for name in ("a", "b"):
        project.add(name)
    extract.run(SMALL, project.root, workers=1)
    before = times(project.cues)
    extract.run(replace(SMALL, cues=replace(SMALL.cues, num_frames=9)), project.root, workers=1)
    assert all(times(project.cues)[name] != before[name] for name in ("a", "b"))
    assert read_cues(project.cues / "b.npz").num_frames == 9


def test_other_code_makes_every_clip_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        project.add(name)
    extract.run(SMALL, project.root, workers=1)
    before, keys = times(project.cues), {row["key"] for row in manifest(project).values()}
    extract.run(SMALL, project.root, workers=1)
    assert times(project.cues) == before
    monkeypatch.setattr(extract, "code_hash", lambda module: f"another {module}")
    extract.run(SMALL, project.root, workers=1)
    assert all(time != before[name] for name, time in times(project.cues).items())
    assert keys.isdisjoint(row["key"] for row in manifest(project).values())


def test_damaged_and_foreign_cue_files_are_made_again(project: Project) -> None:
    for name in ("cut", "empty", "garbage", "other", "good"):
        project.add(name)
    extract.run(SMALL, project.root, workers=1)
    expected, before = content(project.cues), times(project.cues)
    (project.cues / "cut.npz").write_bytes(expected["cut.npz"][:-40])
    (project.cues / "empty.npz").write_bytes(b"")
    (project.cues / "garbage.npz").write_bytes(os.urandom(5000))
    shutil.copy(project.cues / "good.npz", project.cues / "other.npz")
    extract.run(SMALL, project.root, workers=1)
    assert content(project.cues) == expected
    assert times(project.cues)["good"] == before["good"]


def test_leftovers_go_and_strangers_stay(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.add("clip")
    extract.run(SMALL, project.root, workers=1)
    (project.cues / ".clip.npz.123.partial").write_bytes(b"half")
    (project.cues / "notes [draft].txt").write_text("mine")
    np.savez(project.cues / "mine.npz", a=np.zeros(3))
    shutil.copy(project.cues / "clip.npz", project.cues / "renamed.npz")
    capsys.readouterr()
    extract.run(SMALL, project.root, workers=1)
    assert set(content(project.cues)) == {
        "clip.npz",
        "manifest.json",
        "notes [draft].txt",
        "mine.npz",
        "renamed.npz",
    }
    assert "3 entries that are no cues" in capsys.readouterr().err


def test_a_bad_clip_costs_itself_alone(
    project: Project, misbehaving: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What mends the backend on the way stands for something outside the code.
    monkeypatch.setattr(extract, "code_hash", lambda module: "the same")
    ids = ["bug-1", "fine-1", "fine-2", "fine-3", "killed-1", "refused-1", "refused-2"]
    for clip_id in ids:
        project.add(clip_id)
    (project.cues).mkdir()
    (project.cues / "killed-1.npz").write_bytes(b"of an earlier run")
    extract.run(misbehaving, project.root, workers=2)
    rows = manifest(project)
    assert sorted(rows) == ids
    assert [clip_id for clip_id in ids if rows[clip_id]["status"] == "ok"] == ["fine-1", "fine-2", "fine-3"]
    assert rows["bug-1"]["reason"] == "KeyError: 'depth'"
    assert rows["killed-1"]["reason"] == "its worker process died of SIGKILL: out of memory?"
    assert rows["refused-2"]["reason"] == "data/raw/simulated/refused-2.npz: nothing to see"
    assert sorted(times(project.cues)) == ["fine-1", "fine-2", "fine-3"]
    # Reasons that differ by the clip's name alone are one line of the closing table.
    table = " ".join(capsys.readouterr().err.split())
    assert "nothing to see │ 2 │" in table

    # Failed clips are tried again, finished ones are not.
    before = times(project.cues)
    project.remove("killed-1")
    monkeypatch.setitem(extract.BACKENDS, "annotated", "tests.cues.mended")
    extract.run(misbehaving, project.root, workers=1)
    after = times(project.cues)
    assert sorted(after) == [clip_id for clip_id in ids if clip_id != "killed-1"]
    assert all(after[name] == before[name] for name in before)


def test_too_many_failures_end_the_run_and_keep_what_is_finished(project: Project, misbehaving: Params) -> None:
    project.add("fine")
    for k in range(40):
        project.add(f"refused-{k:02}")
    strict = replace(misbehaving, cues=replace(misbehaving.cues, max_clips_failed=2))
    with pytest.raises(StageError, match=r"stopped after 3 failed clips .*; 3 x .*<clip>\.npz: nothing to see"):
        extract.run(strict, project.root, workers=1)
    assert sorted(times(project.cues)) == ["fine"]


def test_no_clip_with_cues_is_an_error_with_the_reasons(project: Project) -> None:
    project.add_row("a", truth="data/raw/simulated/absent.npz")
    project.add_row("b")
    reasons = r"no clip has cues; 1 x data/.*/absent\.npz: no such truth file; 1 x no truth"
    with pytest.raises(StageError, match=reasons):
        extract.run(SMALL, project.root)
    assert [row["status"] for row in manifest(project).values()] == ["failed", "failed"]


def test_unusable_tables_are_errors_that_say_what_to_do(project: Project) -> None:
    with pytest.raises(StageError, match=r"curated\.parquet does not exist: run the curate stage"):
        extract.run(SMALL, project.root)
    project.add("a")
    project.rows["a"] |= {"status": "dropped", "reason": "static"}
    project.save()
    with pytest.raises(StageError, match="keeps no clip"):
        extract.run(SMALL, project.root)
    project.rows["a"] |= {"status": "kept", "clip_id": "../../etc/x"}
    project.save()
    with pytest.raises(StageError, match=r"clip id '\.\./\.\./etc/x' is not a file name"):
        extract.run(SMALL, project.root)
    project.rows["a"]["clip_id"] = "a"
    del project.rows["a"]["sha256"]
    project.save()
    with pytest.raises(StageError, match="no column 'sha256'"):
        extract.run(SMALL, project.root)


@pytest.mark.slow
def test_a_killed_run_is_taken_up_where_it_was(project: Project, misbehaving: Params) -> None:
    """SIGKILL mid-run: no torn file, finished clips stay as they are, and the end is that of a run without a kill."""
    for k in range(20):
        project.add(f"slow-{k:02}")
    script = project.root / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom dsr.cues import extract\n"
        "from tests.cues.test_extract import MISBEHAVING\n"
        "if __name__ == '__main__':\n"
        "    extract.BACKENDS['annotated'] = 'tests.cues.misbehaving'\n"
        "    extract.run(MISBEHAVING, Path(sys.argv[1]), workers=1)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(project.root)], env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 30
    while len(list(project.cues.glob("*.npz"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = times(project.cues)
    assert 4 <= len(finished) < 20
    for name in finished:
        read_cues(project.cues / f"{name}.npz")
    assert not (project.cues / "manifest.json").exists()

    extract.run(misbehaving, project.root, workers=1)
    assert {name: time for name, time in times(project.cues).items() if name in finished} == finished
    resumed = content(project.cues)
    shutil.rmtree(project.cues)
    extract.run(misbehaving, project.root, workers=1)
    assert content(project.cues) == resumed
    assert len(manifest(project)) == 20
