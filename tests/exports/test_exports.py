"""Exports read back as their tools read them: by schema, and by their own classes over a stand-in for the tool."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import yaml

from dsr.clips.video import probe, read_frames
from dsr.console import StageError
from dsr.cues.schema import write_cues
from dsr.examples.views import bare_cues
from dsr.exports import run
from dsr.files import write_parquet
from tests.evaluation.rule_scorers import benchmark
from tests.videos import make_video

FRAMES = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips 0 and 1 with a video, 2 without cues, 3 a trajectory alone; a question of clip 1 may see 3 of 8 frames."""
    root = tmp_path_factory.mktemp("project")
    index = np.round(np.linspace(0, FRAMES - 1, 8)).astype(np.int64)
    for k in range(3):
        make_video(root / f"data/raw/toy/clip{k}.mp4", num_frames=FRAMES, seed=k)
        if k < 2:
            write_cues(root / f"data/cues/clip{k}.npz", bare_cues(index / 10, index, 64, 48))
    files = [*(f"data/raw/toy/clip{k}.mp4" for k in range(3)), ""]
    catalog = pd.DataFrame({"clip_id": [f"clip{k}" for k in range(4)], "status": "ok", "file": files})
    write_parquet(root / "data/clips/catalog.parquet", catalog)
    table = benchmark().assign(shown_frames=8)
    table.loc[table["qa_id"] == "qa1A", "shown_frames"] = 3
    write_parquet(root / "data/qa/bench.parquet", table)
    return root


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_videos_are_whole_or_cut_and_what_has_none_is_counted(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(root, "sharegpt", tmp_path, "bench")
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == ["clip0.mp4", "clip1.mp4", "clip1@03.mp4"]
    assert (tmp_path / "videos/clip0.mp4").read_bytes() == (root / "data/raw/toy/clip0.mp4").read_bytes()
    # The cut one ends with the third of the eight frames that the model sees, at place 11 of the video.
    part = probe(tmp_path / "videos/clip1@03.mp4")
    assert (part.num_frames, part.width, part.height) == (12, 64, 48)
    shown = read_frames(tmp_path / "videos/clip1@03.mp4", range(12)).astype(int)
    whole = read_frames(root / "data/raw/toy/clip1.mp4", range(12)).astype(int)
    assert np.abs(shown - whole).mean() < 4
    said = capsys.readouterr().err
    assert "4 questions left out: no cues: data/cues/clip2.npz does not exist" in said
    assert "4 questions left out: no video (trajectories alone)" in said


def test_videos_of_different_clips_never_share_a_file(root: Path, tmp_path: Path) -> None:
    """A part of clip1 is not the clip `clip1-03`, and what an earlier export left is not shown again."""
    project = tmp_path / "project"
    index = np.arange(8) * 5
    for clip, seed in (("clip1", 1), ("clip1-03", 2)):
        make_video(project / f"data/raw/toy/{clip}.mp4", num_frames=36, seed=seed)
        write_cues(project / f"data/cues/{clip}.npz", bare_cues(index / 10, index, 64, 48))
    clips = ["clip1", "clip1-03"]
    files = [f"data/raw/toy/{clip}.mp4" for clip in clips]
    write_parquet(
        project / "data/clips/catalog.parquet", pd.DataFrame({"clip_id": clips, "status": "ok", "file": files})
    )
    table = benchmark().iloc[:2].assign(videoID=clips, shown_frames=[3, 8])
    write_parquet(project / "data/qa/bench.parquet", table)
    (tmp_path / "out/videos").mkdir(parents=True)
    (tmp_path / "out/videos/clip1-03.mp4").write_bytes(b"of an earlier export")
    run(project, "qwen-sft", tmp_path / "out", "bench")
    part, whole = json.loads((tmp_path / "out/dsr_bench.json").read_text())
    assert probe(tmp_path / "out" / part["video"]).num_frames == 11
    assert (tmp_path / "out" / whole["video"]).read_bytes() == (project / files[1]).read_bytes()


def test_sharegpt_as_llama_factory_reads_it(root: Path, tmp_path: Path) -> None:
    run(root, "sharegpt", tmp_path, "bench")
    info = json.loads((tmp_path / "dataset_info.json").read_text())["dsr_bench"]
    assert info["formatting"] == "sharegpt"
    records = json.loads((tmp_path / info["file_name"]).read_text())
    assert len(records) == 8
    for record in records:
        messages, videos = (record[info["columns"][name]] for name in ("messages", "videos"))
        assert [message["from"] for message in messages] == ["human", "gpt"]
        assert messages[0]["value"].count("<video>") == len(videos) == 1
        assert (tmp_path / videos[0]).is_file()
    assert records[1]["conversations"][1]["value"] == "B"
    assert records[1]["conversations"][0]["value"] == (
        "<video>\nHow does the distance change?\nOptions:\nA. grows\nB. shrinks\nC. constant\nD. grows, then shrinks\n"
        "Answer with the letter."
    )


def test_qwen_as_its_trainer_reads_it(root: Path, tmp_path: Path) -> None:
    run(root, "qwen-sft", tmp_path, "bench")
    records = json.loads((tmp_path / "dsr_bench.json").read_text())
    assert len({record["id"] for record in records}) == 8
    for record in records:
        assert (tmp_path / record["video"]).is_file()
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
        assert record["conversations"][0]["value"].startswith("<video>\n")


def test_lmms_eval_task(root: Path, tmp_path: Path) -> None:
    run(root, "lmms-eval", tmp_path, "bench")

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    task = yaml.load((tmp_path / "dsr_bench.yaml").read_text(), Loader)
    assert (task["task"], task["dataset_path"], task["output_type"]) == ("dsr_bench", "json", "generate_until")
    docs = [json.loads(line) for line in Path(task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()]
    assert len(docs) == 8
    code = load_module(tmp_path / "lmms_eval_task.py")
    functions = [task[name] for name in ("doc_to_visual", "doc_to_text", "process_results")]
    functions += [metric["aggregation"] for metric in task["metric_list"]]
    assert all(hasattr(code, name.removeprefix("lmms_eval_task.")) for name in functions)
    assert Path(code.doc_to_visual(docs[0])[0]).is_file()
    assert code.doc_to_text(docs[0], {"post_prompt": "Go."}).endswith("D. grows, then shrinks\nGo.")
    # Right in the first quartet, in four ways; in the second one A is said every time.
    texts = ["A", "The answer is B.", "<think>A?</think>(C) constant", "**D**", *["A"] * 4]
    results = [code.process_results(doc, [text]) for doc, text in zip(docs, texts, strict=True)]
    values = {name: getattr(code, name)([result[name] for result in results]) for name in results[0]}
    assert values == {
        "accuracy": 5 / 8,
        "accuracy_by_type": {"abs_dir": 0.25, "rel_dis": 1.0},
        "quartet_accuracy": 0.5,
    }
    assert code.letter_of("A or B", "ABCD") == code.letter_of("The answer is A. The answer is B.", "ABCD") == ""


@pytest.fixture
def vlmeval(monkeypatch: pytest.MonkeyPatch) -> None:
    """What VLMEvalKit gives a dataset class: a base that reads the TSV, and files by ending."""

    class VideoBaseDataset:
        def __init__(self, dataset: str, pack: bool, nframe: int, fps: float) -> None:
            found = self.prepare_dataset(dataset)
            self.data_root, self.data = found["root"], pd.read_csv(found["data_file"], sep="\t")
            assert {"index", "question", "video"} <= set(self.data)

        def save_video_frames(self, video: str) -> list[str]:
            return [f"{self.data_root}/{video}-{k}.jpg" for k in (1, 2)]

    base, smp = ModuleType("vlmeval.dataset.video_base"), ModuleType("vlmeval.smp")
    base.VideoBaseDataset = VideoBaseDataset  # type: ignore[attr-defined]
    smp.load = lambda file: pd.read_csv(file, sep="\t")  # type: ignore[attr-defined]
    smp.dump = lambda table, file: table.to_csv(file, index=False)  # type: ignore[attr-defined]
    for name, module in {
        "vlmeval": ModuleType("vlmeval"),
        "vlmeval.dataset": ModuleType("vlmeval.dataset"),
        "vlmeval.dataset.video_base": base,
        "vlmeval.smp": smp,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_vlmevalkit_dataset(root: Path, tmp_path: Path, vlmeval: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, "vlmevalkit", tmp_path, "bench")
    monkeypatch.setenv("DSR_EXPORT", str(tmp_path))
    dataset = load_module(tmp_path / "vlmevalkit_dataset.py").DSRBench(nframe=2)
    assert len(dataset.data) == 8
    video, text = dataset.build_prompt(0, video_llm=True)
    assert Path(video["value"]).is_file()
    assert text["value"].splitlines()[1:3] == ["Options:", "A. grows"]
    assert [part["type"] for part in dataset.build_prompt(0, video_llm=False)] == ["image", "image", "text"]
    assert dataset.data.loc[0, ["A", "D", "answer"]].tolist() == ["grows", "grows, then shrinks", "A"]
    file = tmp_path / "predictions.tsv"
    texts = ["A", "B.", "The answer is C", "(D)", *["A"] * 4]
    dataset.data.assign(prediction=texts).to_csv(file, sep="\t", index=False)
    result = dataset.evaluate(str(file)).set_index("split")["accuracy"].to_dict()
    assert result == {"all": 5 / 8, "abs_dir": 0.25, "rel_dis": 1.0, "quartets": 0.5}
    assert (tmp_path / "predictions_acc.csv").is_file()


def test_what_cannot_be_exported_says_why(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="unknown format 'tfrecord'; known: vlmevalkit"):
        run(root, "tfrecord", tmp_path, "bench")
    with pytest.raises(StageError, match="does not exist"):
        run(root, "sharegpt", tmp_path, "train")
    table = benchmark()
    write_parquet(tmp_path / "blind.parquet", table[table["videoID"] == "clip3"])
    with pytest.raises(StageError, match="trajectories alone"):
        run(root, "sharegpt", tmp_path, str(tmp_path / "blind.parquet"))
