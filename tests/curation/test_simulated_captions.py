"""The simulator's captions come out right: every body named, as an agent or as an object."""

from pathlib import Path

import pandas as pd
import pytest

from dsr import project
from dsr.clips import catalog
from dsr.curation import curate
from dsr.params import Params, Simulate
from dsr.simulator import stage
from dsr.simulator.truth import read_truth


@pytest.mark.slow
def test_simulated_captions_are_understood(tmp_path: Path) -> None:
    params = Params(simulate=Simulate(num_clips=20, rendered=0))
    stage.run(params, tmp_path, 1)
    catalog.run(params, tmp_path, 1)
    curate.run(params, tmp_path, 1)
    table = pd.read_parquet(tmp_path / project.CURATED)
    assert len(table) == 20
    assert (table["status"] == "kept").all()
    assert table["dynamic"].all()
    for clip in table.itertuples():
        truth = read_truth(tmp_path / clip.truth)
        for agents, named in ((True, clip.agents), (False, clip.objects)):
            # A label keeps its colour where it tells two of a kind apart.
            words = truth.words[truth.is_agent == agents].tolist()
            expected = sorted(
                label if words.count(word) > 1 else word
                for label, word in zip(truth.labels[truth.is_agent == agents].tolist(), words, strict=True)
            )
            assert sorted(named) == expected, clip.caption
