"""A video multiple-choice benchmark for VLMEvalKit: a TSV of questions and a dataset class.

Copy the class into vlmeval/dataset/, import it in vlmeval/dataset/__init__.py and add it to VIDEO_DATASET; set
DSR_EXPORT to the export's folder.
"""

import json
import shutil
from pathlib import Path

import pandas as pd

from dsr.exports.exported import Exported
from dsr.files import whole_file
from dsr.mcq import ALPHABET, prompt

_CODE = Path(__file__).parent / "consumers/vlmevalkit_dataset.py"


def write(questions: list[Exported], folder: Path, name: str) -> list[Path]:
    """`DSR-Bench.tsv` (index, video, question, candidates, A …, answer, type, …) and the class that reads it."""
    longest = max(len(question.options) for question in questions)
    rows = [
        {
            "index": index,
            # VLMEvalKit adds the ending.
            "video": question.video.removesuffix(".mp4"),
            "question": question.question,
            "candidates": json.dumps(question.options, ensure_ascii=False),
            **dict.fromkeys(ALPHABET[:longest], ""),
            **dict(zip(ALPHABET, question.bare_options, strict=False)),
            "answer": question.answer,
            "type": question.type,
            "qa_id": question.qa_id,
            "quartet_id": question.quartet_id,
            "source_video": question.source_video,
            "prompt": prompt(question.question, question.options),
        }
        for index, question in enumerate(questions)
    ]
    table, code = folder / "DSR-Bench.tsv", folder / _CODE.name
    with whole_file(table) as partial:
        pd.DataFrame(rows).to_csv(partial, sep="\t", index=False)
    with whole_file(code) as partial:
        shutil.copyfile(_CODE, partial)
    return [table, code]
