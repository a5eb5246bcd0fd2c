"""Conversations for fine-tuning: Qwen2.5-VL's own trainer, and LLaMA-Factory's ShareGPT form.

The user's turn is the prompt of `dsr.mcq`, the video first; the answer is the right letter.
"""

from pathlib import Path
from typing import Any

from dsr.exports.exported import Exported
from dsr.files import write_json
from dsr.mcq import prompt


def write_qwen(questions: list[Exported], folder: Path, name: str) -> list[Path]:
    """`<name>.json` for qwen-vl-finetune: register it in qwenvl/data with this folder as its data_path."""
    path = folder / f"{name}.json"
    write_json(path, [{"id": q.qa_id, "video": q.video, "conversations": _turns(q)} for q in questions])
    return [path]


def write_sharegpt(questions: list[Exported], folder: Path, name: str) -> list[Path]:
    """`<name>.json` and the dataset_info.json by which LLaMA-Factory knows it; set its dataset_dir and media_dir to
    this folder."""
    path, info = folder / f"{name}.json", folder / "dataset_info.json"
    write_json(path, [{"conversations": _turns(q), "videos": [q.video]} for q in questions])
    columns = {"messages": "conversations", "videos": "videos"}
    write_json(info, {name: {"file_name": path.name, "formatting": "sharegpt", "columns": columns}})
    return [path, info]


def _turns(question: Exported) -> list[dict[str, Any]]:
    return [
        {"from": "human", "value": f"<video>\n{prompt(question.question, question.options)}"},
        {"from": "gpt", "value": question.answer},
    ]
