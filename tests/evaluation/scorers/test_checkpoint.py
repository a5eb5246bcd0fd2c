"""Scoring by a small checkpoint on hand-made clips, and by toy models that show what a control takes away."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from dsr.console import StageError  # noqa: E402
from dsr.cues.schema import write_cues  # noqa: E402
from dsr.evaluation.controls import CONTROLS, ControlError  # noqa: E402
from dsr.evaluation.evaluate import evaluate, run  # noqa: E402
from dsr.evaluation.prediction_cache import PredictionCache  # noqa: E402
from dsr.evaluation.predictions import predict  # noqa: E402
from dsr.evaluation.scorers import checkpoint as scoring  # noqa: E402
from dsr.evaluation.scorers.checkpoint import CheckpointScorer, load_scorer  # noqa: E402
from dsr.examples.clips import ClipStore  # noqa: E402
from dsr.examples.collate import Collator  # noqa: E402
from dsr.examples.inputs import ClipInputs, Video, change_patches  # noqa: E402
from dsr.examples.records import example_of  # noqa: E402
from dsr.examples.views import change_frames  # noqa: E402
from dsr.files import write_parquet  # noqa: E402
from dsr.mcq import read_questions, read_row  # noqa: E402
from dsr.model.chat import option_log_probs  # noqa: E402
from dsr.model.presets import make_model  # noqa: E402
from dsr.params import GSM, Evaluate, Model, Params  # noqa: E402
from tests.scenes import looking, make_cues  # noqa: E402
from tests.training.projects import make_project  # noqa: E402
from tests.videos import make_video  # noqa: E402

NUM_FRAMES = 8
CLIPS = ("filmed_0", "filmed_1", "drawn_0")
"""Two clips with a video, from one source video, and one that is a trajectory alone."""


def write_clip(root: Path, clip_id: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = np.linspace(rng.normal((4, 0, 0), 1), rng.normal((8, 0, 0), 1), NUM_FRAMES)
    cues = make_cues(looking(np.array([0, 0, 1.0]), path), {"ball": (path, None)}, clip_id=clip_id)
    point_map = rng.normal(0, 1, (NUM_FRAMES, 4, 4, 3)).astype(np.float32) + np.array([0, 0, 5], np.float32)
    confidence = np.ones((NUM_FRAMES, 4, 4), np.float32)
    write_cues(root / f"data/cues/{clip_id}.npz", replace(cues, point_map=point_map, confidence=confidence))


def benchmark() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "videoID": clip,
                "question": f"From 0.0 s to 4.0 s, how does the distance to the ball change? ({clip})",
                "options": ["A. It grows.", "B. It shrinks.", "C. It grows, then shrinks.", "D. It stays the same."],
                "answer": letter,
                "type": "rel_dis",
                "qa_id": f"{clip}-{letter}",
                "quartet_id": f"{clip}-q",
                "source_video": clip.split("_")[0],
                "shown_frames": 6 if letter == "A" else NUM_FRAMES,
            }
            for clip in CLIPS
            for letter in "ABCD"
        ]
    )


def varied() -> pd.DataFrame:
    """The benchmark with a text of its own for every question, each of another length."""
    questions = benchmark()
    questions["question"] += [" Look closely." * (number % 4) for number in range(len(questions))]
    return questions


def build(root: Path, gsm: GSM) -> Path:
    """A project folder with clips, cues, a benchmark and a model that was drawn, not trained."""
    catalog = pd.DataFrame({"clip_id": CLIPS, "status": "ok", "file": ""})
    for row, clip in enumerate(CLIPS):
        write_clip(root, clip, seed=row)
        if clip.startswith("filmed"):
            catalog.loc[row, "file"] = f"data/raw/own/{clip}.mp4"
            make_video(root / catalog.loc[row, "file"], num_frames=NUM_FRAMES + row, seed=row)
    write_parquet(root / "data/clips/catalog.parquet", catalog)
    questions = benchmark()
    write_parquet(root / "data/qa/bench.parquet", questions)
    texts = [*questions["question"], *questions["options"].explode()]
    model, processor = make_model(Model(backbone="", max_pixels=1568), gsm, root, texts)
    model.save_pretrained(root / "models/gsm")
    processor.save_pretrained(root / "models/gsm")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return build(tmp_path_factory.mktemp("project"), GSM(num_tokens=4))


BY_FIVES = Evaluate(batch_size=5, shared_prefix=False)


def scorer_of(root: Path, questions: pd.DataFrame | None = None, options: Evaluate = BY_FIVES) -> CheckpointScorer:
    if questions is None:
        questions = read_questions(root / "data/qa/bench.parquet")
    return load_scorer(root / "models/gsm", ClipStore.of_project(root), questions, options, workers=1)


def scores_of(scorer: CheckpointScorer, control: str = "score", questions: pd.DataFrame | None = None) -> np.ndarray:
    """[n, 4] log-probabilities of the benchmark's questions."""
    asked = [read_row(row) for row in (benchmark() if questions is None else questions).to_dict("records")]
    replies = {place: reply for batch in scorer(asked, control) for place, reply in batch.items()}
    return np.array([replies[place].log_probs for place in range(len(asked))])


def test_scores_are_log_probabilities_that_no_batch_changes(root: Path) -> None:
    scores = scores_of(scorer_of(root))
    assert scores.shape == (12, 4)
    assert (scores < 0).all()
    assert (np.exp(scores).sum(axis=1) <= 1).all()
    alone = scores_of(
        scorer_of(root, options=Evaluate(batch_size=1, shared_prefix=False)), questions=benchmark().iloc[::-1]
    )[::-1]
    np.testing.assert_allclose(scores, alone, atol=3e-4)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["gsm", "add"])
def test_a_shared_prefix_gives_the_same_scores_under_every_control(
    fusion: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_DECIMALS", 12)
    root = root if fusion == "gsm" else build(tmp_path, GSM(fusion=fusion))
    apart, together = scorer_of(root), scorer_of(root, options=Evaluate(batch_size=5))
    forwards = count_packed(monkeypatch)
    asked = varied()
    for control in CONTROLS:
        expected = scores_of(apart, control, asked)
        assert not forwards
        np.testing.assert_allclose(scores_of(together, control, asked), expected, rtol=0, atol=1e-5, err_msg=control)
        # Of each clip one question shows 6 frames and three show 8: 1 + 3 + 1, 3 + 1, 3 in batches of 5.
        assert forwards == ([] if control == "blind" else [3, 2, 1]), control
        forwards.clear()


def count_packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of videos in every packed batch from here on."""
    counts: list[int] = []

    def log_probs(model, batch, tokens):
        if "packing" in batch:
            counts.append(len(batch["video_grid_thw"]))
        return option_log_probs(model, batch, tokens)

    monkeypatch.setattr(scoring, "option_log_probs", log_probs)
    return counts


@pytest.mark.slow
def test_each_control_takes_away_what_it_says(root: Path) -> None:
    scorer = scorer_of(root)
    controls = [
        "score",
        *(name for name, control in CONTROLS.items() if control.view != "whole"),
    ]
    before = {control: scores_of(scorer, control) for control in controls}
    for control in controls[1:]:
        assert not np.isclose(before["score"], before[control], atol=1e-5).all(axis=1).all(), control
    for clip, seed in zip(CLIPS, (7, 8, 9), strict=True):
        write_clip(root, clip, seed)
    other = scorer_of(root)
    after = {control: scores_of(other, control) for control in controls}
    for row, clip in enumerate(CLIPS):
        write_clip(root, clip, row)
    # Other geometry changes what geometry enters, and nothing else.
    for control in controls:
        same = np.isclose(before[control], after[control], atol=2e-4).all()
        assert same == (control in ("blind", "zeroed_geometry")), control


def test_a_video_is_shown_as_the_control_says(root: Path) -> None:
    inputs = scorer_of(root).inputs
    size = inputs.processor.video_processor
    for clip, frames in (("filmed_0", 8), ("filmed_1", 5), ("drawn_0", 3)):
        video = inputs.video(clip, frames)
        assert torch.equal(
            change_patches(video, "whole", frames, size.merge_size, size.patch_size).patches, video.patches
        )
        for name in ("black_video", "first_frame", "reversed_time", "mirrored"):
            shown = inputs.video(clip, frames, CONTROLS[name].shown.video)
            expected = change_frames(pixels(video, size)[:frames], CONTROLS[name].shown.video)
            assert shown.grid_thw == video.grid_thw
            np.testing.assert_array_equal(pixels(shown, size)[:frames], expected)


def test_an_encoder_that_looks_at_the_video_sees_what_the_geometry_is_of(root: Path) -> None:
    """`pi3` has its own patches wherever the geometry is not that of the video that is shown."""
    inputs, lenders = scorer_of(root).inputs, {"filmed_0": "filmed_1"}
    example = example_of(read_row(benchmark().iloc[1].to_dict()), inputs.clips)
    own, lent = (inputs.normalise(inputs.video(clip, 8).patches) for clip in ("filmed_0", "filmed_1"))
    config = make_model(
        Model(backbone="", max_pixels=1568), GSM(num_tokens=4, encoders=("pi3",)), root, ["a question"]
    )[0].config

    def seen(control: str) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch = Collator(inputs, config, CONTROLS[control].view, lenders)([example])
        return batch["pixel_values_videos"], batch["geometry"].get("pi3", {}).get("patches")

    black = inputs.normalise(torch.zeros_like(inputs.video("filmed_0", 8).patches))
    for control, shown, of_geometry in (
        ("score", own, None),
        ("shuffled_geometry", own, lent),
        ("zeroed_geometry", own, black),
        ("black_video", black, own),
    ):
        video, patches = seen(control)
        assert torch.equal(video, shown), control
        assert patches is None if of_geometry is None else torch.equal(patches, of_geometry), control
    for control in ("first_frame", "reversed_time", "mirrored"):
        video, patches = seen(control)
        assert patches is None
        assert not torch.equal(video, own), control


def pixels(video: Video, processor) -> np.ndarray:
    """Frames [T, H, W, 3] of patches, laid out one by one as Qwen2.5-VL documents them."""
    t, h, w = video.grid_thw
    m, p = processor.merge_size, processor.patch_size
    frames = np.zeros((2 * t, h * p, w * p, 3), np.uint8)
    patches = video.patches.view(-1, 3, 2, p, p).numpy()
    number = 0
    for group in range(t):
        for block_y in range(h // m):
            for block_x in range(w // m):
                for y in range(m):
                    for x in range(m):
                        top, left = (block_y * m + y) * p, (block_x * m + x) * p
                        cell = patches[number].transpose(1, 2, 3, 0)
                        frames[2 * group : 2 * group + 2, top : top + p, left : left + p] = cell
                        number += 1
    return frames


def test_a_model_without_geometry_has_no_geometry_to_shuffle(tmp_path: Path) -> None:
    scorer = scorer_of(build(tmp_path, GSM(fusion="none")))
    for control in ("shuffled_geometry", "zeroed_geometry"):
        with pytest.raises(ControlError, match="takes no geometry"):
            predict(benchmark(), scorer, control)


def test_questions_of_clips_that_are_not_there_are_missing_with_a_reason(root: Path) -> None:
    questions = pd.concat([benchmark(), benchmark().iloc[:1].assign(videoID="gone", qa_id="gone-A")])
    table = predict(questions, scorer_of(root, questions))
    assert table.loc[12, ["status", "reason"]].tolist() == ["missing", "not in the catalogue"]
    assert (table["status"].iloc[:12] == "scored").all()


def test_a_video_that_fails_after_it_was_accepted_costs_its_questions_alone(root: Path) -> None:
    scorer = scorer_of(root)
    # As when the cache is too small to hold what was decoded at first, and the file was damaged.
    scorer.inputs.clips = ClipStore.of_project(root, cache_bytes=1)
    scorer.inputs.clips.videos["filmed_1"] = root / "data/qa/bench.parquet"
    table = predict(benchmark(), scorer)
    assert table.groupby("videoID")["status"].unique().map(list).to_dict() == {
        "drawn_0": ["scored"],
        "filmed_0": ["scored"],
        "filmed_1": ["missing"],
    }
    assert "not a readable video" in table.loc[4, "reason"]
    blind = predict(benchmark(), scorer, "blind")
    assert blind["status"].tolist() == table["status"].tolist()


def test_a_killed_run_goes_on_with_a_shared_prefix_and_without(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Evaluate(batch_size=5)
    apart, together = scorer_of(root), scorer_of(root, options=options)
    assert apart.identity == together.identity
    whole = predict(varied(), together)
    with PredictionCache() as cache:
        predict(varied().iloc[[1, 2, 7]], apart, cache=cache)
        asked = count_packed(monkeypatch)
        resumed = predict(varied(), together, cache=cache)
        # Of 12 questions 9 are left, about 3 clips x 2 numbers of frames.
        assert sum(asked) == 6
        asked.clear()
        pd.testing.assert_frame_equal(predict(varied(), apart, cache=cache), resumed)
        assert not asked
    pd.testing.assert_frame_equal(resumed, whole, atol=3e-4, rtol=0)


def test_a_clip_that_fails_in_a_shared_batch_costs_its_questions_alone(root: Path) -> None:
    together = scorer_of(root, options=Evaluate())
    together.inputs.clips = ClipStore.of_project(root, cache_bytes=1)
    together.inputs.clips.videos["filmed_1"] = root / "data/qa/bench.parquet"
    table = predict(varied(), together)
    assert (table["status"] == "missing").tolist() == (table["videoID"] == "filmed_1").tolist()
    expected = predict(varied(), scorer_of(root))
    columns, seen = [f"logp_{letter}" for letter in "ABCD"], table["status"] == "scored"
    np.testing.assert_allclose(table.loc[seen, columns], expected.loc[seen, columns], atol=3e-4)


def test_texts_are_written_a_sequence_each(root: Path) -> None:
    options = Evaluate(mode="generate", max_new_tokens=2, batch_size=12)
    texts = [
        predict(varied(), scorer_of(root, options=replace(options, shared_prefix=shared)))["text"].tolist()
        for shared in (False, True)
    ]
    assert texts[0] == texts[1]


def test_five_options_have_five_letters(root: Path) -> None:
    questions = benchmark().iloc[:2]
    questions.at[0, "options"] = [*questions.at[0, "options"], "E. It is something else."]
    table = predict(questions, scorer_of(root))
    assert table["logp_E"].notna().tolist() == [True, False]
    assert table["num_options"].tolist() == [5, 4]


def test_generated_texts_are_kept_and_parsed(root: Path) -> None:
    scorer = scorer_of(root, options=Evaluate(mode="generate", max_new_tokens=4, batch_size=5))
    table = predict(benchmark(), scorer)
    assert set(table["status"]) <= {"scored", "unparsed"}
    assert table["logp_A"].isna().all()
    again = predict(benchmark().iloc[::-1], scorer_of(root, options=scorer.options)).iloc[::-1]
    assert again["text"].tolist() == table["text"].tolist()
    assert scorer.identity != scorer_of(root).identity


def test_a_model_is_the_same_whatever_the_records_of_its_training_say(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = scoring.folder_hash(tmp_path)
    (tmp_path / "params.json").write_text('{"train": {"save_steps": 7}}')
    assert scoring.folder_hash(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert scoring.folder_hash(tmp_path) != before


def test_the_stage_scores_a_checkpoint_with_its_controls(root: Path) -> None:
    params = Params(evaluate=Evaluate(bootstrap=100, batch_size=6, shared_prefix=False))
    run(params, root, workers=1)
    predictions = pd.read_parquet(root / "data/predictions/bench.parquet")
    assert predictions.groupby("control").size().to_dict() == {"score": 12, "blind": 12, "shuffled_geometry": 12}
    files = [*(root / "metrics/eval").glob("*.csv"), root / "metrics/eval.json"]
    assert len(files) == 9
    first = {file: file.read_bytes() for file in files}
    run(params, root, workers=1)  # from the cache
    assert {file: file.read_bytes() for file in files} == first
    (root / "data/predictions/cache.sqlite").unlink()
    run(params, root, workers=1)
    assert {file: file.read_bytes() for file in files} == first


def test_without_a_checkpoint_the_stage_says_what_to_run(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data/qa/bench.parquet", benchmark())
    catalog = pd.DataFrame({"clip_id": CLIPS, "status": "ok", "file": ""})
    write_parquet(tmp_path / "data/clips/catalog.parquet", catalog)
    with pytest.raises(StageError, match="dsr train"):
        run(Params(), tmp_path)


# --- Toy models that use one thing alone ---


class Toy:
    """Puts all its belief into one option, which `choose` finds from the prompt's text and the batch's inputs."""

    device = "cpu"

    def __init__(self, root: Path, choose) -> None:
        model, processor = make_model(Model(backbone="", max_pixels=28 * 28), GSM(num_tokens=4), root, ["a question"])
        self.inputs = ClipInputs(ClipStore.of_project(root), processor)
        self.config, self.tokenizer, self.choose = model.config, processor.tokenizer, choose

    def __call__(self, input_ids: torch.Tensor, **inputs) -> SimpleNamespace:
        logits = torch.zeros(len(input_ids), 1, len(self.tokenizer))
        for row, ids in enumerate(input_ids):
            options = dict(re.findall(r"([A-D])\. It moves (\w+)\.", self.tokenizer.decode(ids)))
            wanted = self.choose(row, inputs)
            letter = next(letter for letter, way in options.items() if way == wanted)
            logits[row, 0, self.tokenizer(letter, add_special_tokens=False)["input_ids"][0]] = 9.0
        return SimpleNamespace(logits=logits)


def way_of_the_camera(row: int, inputs) -> str:
    """Forward or backward, as the camera's token of the last time group says; nothing known: left."""
    geometry = inputs.get("geometry")
    if geometry is None:
        return "left"
    values = geometry["tracks"]["values"][row]
    camera = values[values[:, 2] == 1]
    moved = float(camera[-1][10])  # its z in the first camera's frame
    return "left" if abs(moved) < 1e-3 else "forward" if moved > 0 else "backward"


def figures(root: Path, choose) -> dict[str, Any]:
    questions = pd.read_parquet(root / "data/qa/train.parquet")
    toy = Toy(root, choose)
    controls = ("blind", "black_video", "first_frame", "zeroed_geometry", "shuffled_geometry", "no_question")
    options = Evaluate(bootstrap=100, controls=controls, rotations=True, cache=False, shared_prefix=False)
    scorer = CheckpointScorer(toy, toy.inputs, questions, options, "toy", workers=1)
    metrics, _ = evaluate(questions, scorer, options, root)
    rows = metrics.tables["by_type"].query("type == 'all'")
    assert rows["asked"].tolist() == rows["scored"].tolist() == [len(questions)] * (len(controls) + 2)
    return metrics.figures


def test_a_model_of_text_alone_has_nothing_above_its_controls(tmp_path: Path) -> None:
    found = figures(make_project(tmp_path, clips=4, rows=4), lambda row, inputs: "forward")
    # Two clips of four go forward.
    assert found["accuracy"] == found["control"]["rotated"] == 0.5
    for control in ("blind", "black_video", "first_frame", "zeroed_geometry", "shuffled_geometry"):
        assert found["gain"][control] == 0, control


def test_a_model_of_geometry_alone_collapses_without_it(tmp_path: Path) -> None:
    root = make_project(tmp_path, clips=2, rows=4)
    found = figures(root, way_of_the_camera)
    assert found["accuracy"] == found["control"]["rotated"] == 1
    # Two clips lend each other their geometry, and they go opposite ways.
    for control in ("blind", "first_frame", "zeroed_geometry", "shuffled_geometry"):
        assert (found["control"][control], found["gain"][control]) == (0, 1), control
    for control in ("black_video", "no_question"):
        assert found["gain"][control] == 0, control
