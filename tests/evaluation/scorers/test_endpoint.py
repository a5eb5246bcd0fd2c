"""A server as the model: what it is sent, how its moods are borne, and that the key stays secret."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dsr.console import StageError
from dsr.evaluation.evaluate import run
from dsr.evaluation.prediction_cache import PredictionCache
from dsr.evaluation.predictions import predict
from dsr.evaluation.scorers.endpoint import EndpointScorer
from dsr.examples.clips import ClipStore
from dsr.files import write_parquet
from dsr.params import Endpoint, Evaluate, Params
from tests.evaluation.rule_scorers import benchmark
from tests.language_models.servers import serving
from tests.videos import make_video

KEY = "sk-very-secret"


def endpoint(url: str, **changes) -> Endpoint:
    return replace(Endpoint(url=url, model="toy", pause=0.01, retries=2, timeout=5, num_frames=4), **changes)


@pytest.fixture
def clips(tmp_path: Path) -> ClipStore:
    """clip0 and clip1; the other clips of the benchmark have no video."""
    files = {f"clip{k}": make_video(tmp_path / f"clip{k}.mp4", num_frames=20, seed=k) for k in (0, 1)}
    return ClipStore(files, tmp_path / "cues", needs_cues=False)


def images_of(body) -> list[np.ndarray]:
    parts = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert all(part["image_url"]["url"].startswith("data:image/jpeg;base64,") for part in parts)
    contents = [base64.b64decode(part["image_url"]["url"].split(",", 1)[1]) for part in parts]
    return [np.asarray(Image.open(io.BytesIO(content))).astype(float) for content in contents]


def test_a_question_goes_out_with_its_frames_and_comes_back_as_a_letter(
    clips: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda body, number: "The answer is B.") as server:
        table = benchmark()
        predicted = predict(table, EndpointScorer(endpoint(server.url), clips, table))
    assert predicted["status"].tolist() == ["scored"] * 8 + ["missing"] * 8
    assert set(predicted["reason"].iloc[8:]) == {"no video"}
    assert predicted["prediction"].tolist()[:8] == ["B"] * 8
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("toy", 0, 256)
    assert [image.shape for image in images_of(body)] == [(48, 64, 3)] * 4
    text = body["messages"][0]["content"][-1]["text"]
    assert text == (
        "These are frames of a video, in order.\n"
        "How does the distance change?\nOptions:\nA. grows\nB. shrinks\nC. constant\nD. grows, then shrinks\n"
        "Answer with the letter."
    )
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_controls_change_what_is_sent(clips: ClipStore) -> None:
    sent = {}
    for control in ("score", "blind", "black_video", "first_frame", "no_question"):
        with serving(lambda body, number: "A") as server:
            table = benchmark().iloc[:1]
            predict(table, EndpointScorer(endpoint(server.url), clips, table), control)
            sent[control] = server.bodies[0]
    own = images_of(sent["score"])
    assert not images_of(sent["blind"])
    assert max(image.max() for image in images_of(sent["black_video"])) < 3
    assert all(np.array_equal(image, own[0]) for image in images_of(sent["first_frame"]))
    assert not np.array_equal(own[0], own[3])
    assert "How does" not in json.dumps(sent["no_question"])
    with serving(lambda body, number: "A") as server:
        scorer = EndpointScorer(endpoint(server.url), clips, benchmark())
        for control in ("shuffled_geometry", "zeroed_geometry"):
            with pytest.raises(Exception, match="a server takes no geometry"):
                predict(benchmark(), scorer, control)
        assert not server.bodies


def test_a_run_that_lost_its_server_goes_on(clips: ClipStore, tmp_path: Path) -> None:
    table = benchmark().iloc[:8]
    table = table.assign(question=table["question"] + table["qa_id"])
    with (
        PredictionCache(tmp_path / "cache.sqlite") as cache,
        serving(lambda body, number: "A" if number <= 4 else (500, "crashed", {})) as server,
    ):
        scorer = EndpointScorer(endpoint(server.url, retries=0, concurrency=2), clips, table)
        with pytest.raises(StageError, match="crashed"):
            predict(table, scorer, cache=cache)
        server.answer = lambda body, number: "B"
        predicted = predict(table, scorer, cache=cache)
    # What was answered before the server broke is kept, and not asked for again.
    assert sorted(predicted["prediction"]) == ["A"] * 4 + ["B"] * 4
    asked = [body["messages"][0]["content"][-1]["text"] for body in server.bodies if body["model"] == "toy"]
    answered = [table["qa_id"].iloc[k] for k in range(8) if predicted["prediction"].iloc[k] == "A"]
    assert all(sum(qa_id in text for text in asked) == 1 for qa_id in answered)


def test_a_refused_question_is_missing_and_the_rest_is_scored(clips: ClipStore) -> None:
    table = benchmark().iloc[:8]
    table = table.assign(question=table["question"] + table["qa_id"])

    def answer(body, number):
        text = body["messages"][0]["content"][-1]["text"]
        return (400, {"error": "content policy"}, {}) if "qa0C" in text else (529, "odd", {}) if number == 2 else "A"

    with PredictionCache() as cache, serving(answer) as server:
        scorer = EndpointScorer(endpoint(server.url, concurrency=3), clips, table)
        predicted = predict(table, scorer, cache=cache)
        assert predicted["status"].tolist() == ["scored"] * 2 + ["missing"] + ["scored"] * 5
        assert predicted["reason"].iloc[2] == 'the server refuses: HTTP 400: {"error": "content policy"}'
        before = len(server.bodies)
        predict(table, EndpointScorer(endpoint(server.url), clips, table), cache=cache)
        # Only what has no answer is asked again.
        assert len(server.bodies) == before + 1


def test_the_stage_with_a_server_keeps_the_key_out_of_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for k in range(4):
        make_video(tmp_path / f"data/raw/toy/clip{k}.mp4", num_frames=20, seed=k)
    files = [f"data/raw/toy/clip{k}.mp4" for k in range(4)]
    catalog = pd.DataFrame({"clip_id": [f"clip{k}" for k in range(4)], "status": "ok", "file": files})
    write_parquet(tmp_path / "data/clips/catalog.parquet", catalog)
    write_parquet(tmp_path / "data/qa/bench.parquet", benchmark())
    with serving(lambda body, number: "A" if number % 2 else "no idea") as server:
        options = Evaluate(
            mode="endpoint", endpoint=endpoint(server.url), controls=("blind", "shuffled_geometry"), bootstrap=100
        )
        run(Params(evaluate=options), tmp_path)
    metrics = json.loads((tmp_path / "metrics/eval.json").read_text())
    counts = metrics["questions"]
    assert counts["asked"] == 16 == counts["scored"] + counts["unparsed"] + counts["missing"]
    assert "shuffled_geometry" not in metrics["control"]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY.encode() not in written
    assert KEY not in "".join(capsys.readouterr())
