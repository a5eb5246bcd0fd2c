"""A published benchmark from its folder to its metrics, with a small checkpoint and with cues for one clip."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from dsr.clips.video import probe  # noqa: E402
from dsr.cues.schema import write_cues  # noqa: E402
from dsr.evaluation import benchmark  # noqa: E402
from dsr.model.presets import make_model  # noqa: E402
from dsr.params import GSM, Evaluate, Model, Params  # noqa: E402
from tests.evaluation.benchmarks.test_readers import vlm4d  # noqa: E402
from tests.scenes import looking, make_cues  # noqa: E402
from tests.videos import make_video  # noqa: E402


def test_vlm4d_with_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, root = tmp_path / "vlm4d", tmp_path / "project"
    for number in range(3):
        make_video(folder / f"videos_real/v{number}.mp4", num_frames=40, size=(96, 64), seed=number)
    (folder / "videos_real/v2.mp4").write_bytes(b"damaged")
    path = np.linspace((4, 0, 0), (8, 0, 0), 8)
    cues = make_cues(looking(np.array([0, 0, 1.0]), path), {"ball": (path, None)})
    write_cues(folder / "cues/videos_real--v0.npz", replace(cues, frame_index=np.arange(8) * 5))
    records = [
        vlm4d(id=f"{n}-{letter}", video=f"videos_real/v{n}.mp4", answer=right)
        for n in range(4)
        for letter, right in (("A", "left"), ("B", "right"))
    ]
    records.append(vlm4d(id="bad", video="videos_real/v0.mp4", answer="purple"))
    (folder / "QA").mkdir()
    (folder / "QA/real_mc.json").write_text(json.dumps(records))
    model, processor = make_model(
        Model(backbone="", max_pixels=1568), GSM(num_tokens=4), root, ["Which way does the bear walk?"]
    )
    model.save_pretrained(tmp_path / "checkpoint")
    processor.save_pretrained(tmp_path / "checkpoint")
    params = Params(evaluate=Evaluate(bootstrap=100, controls=("blind", "mirrored", "zeroed_geometry")))
    benchmark.run(params, root, "vlm4d", folder, tmp_path / "checkpoint", "real", workers=1)
    metrics = json.loads((root / "metrics/benchmarks/vlm4d-real.json").read_text())
    assert metrics["questions"] == {"asked": 9, "scored": 4, "unparsed": 0, "missing": 5}
    table = pd.read_csv(root / "metrics/benchmarks/vlm4d-real/reasons.csv")
    missing = table[table["status"] == "missing"]
    reasons = dict(zip(missing["reason"].str.split(":").str[0], missing["questions"], strict=True))
    assert reasons.pop("answer 'purple' is the value of no option") == 1
    assert reasons.pop("no video") == 2
    assert list(reasons.values()) == [2]
    # Texts that are not the templates' are not rewritten.
    left_out = table[table["status"] == "left_out"]
    assert left_out[["run", "questions"]].to_numpy().tolist() == [["mirrored", 4]]
    predictions = pd.read_parquet(root / "data/predictions/vlm4d-real.parquet").set_index(["control", "qa_id"])
    columns = [f"logp_{letter}" for letter in "ABCD"]
    own, bare = (
        {n: predictions.loc[(c, f"real-{n}-A"), columns].tolist() for n in (0, 1)} for c in ("score", "zeroed_geometry")
    )
    # The clip with cues is shown with them; the one without has nothing to take away.
    assert own[0] != bare[0]
    assert own[1] == bare[1]
    assert "1 clips have no cues (videos_real--v1)" in capsys.readouterr().err
    assert probe(folder / "videos_real/v1.mp4").num_frames == 40
