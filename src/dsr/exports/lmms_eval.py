"""A task folder for lmms-eval: `lmms_eval --tasks <name> --include_path <folder> …`.

lmms-eval finds the questions by the absolute path in the task file, so export again after moving the folder.
"""

import json
import shutil
from pathlib import Path

from dsr.exports.exported import Exported
from dsr.files import whole_file, write_bytes
from dsr.mcq import INSTRUCTION, prompt

_CODE = Path(__file__).parent / "consumers/lmms_eval_task.py"
_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
cluster_key: source_video
doc_to_visual: !function lmms_eval_task.doc_to_visual
doc_to_text: !function lmms_eval_task.doc_to_text
doc_to_target: answer
process_results: !function lmms_eval_task.process_results
generation_kwargs:
  max_new_tokens: 16
  temperature: 0
  do_sample: false
metric_list:
  - metric: accuracy
    aggregation: !function lmms_eval_task.accuracy
    higher_is_better: true
  - metric: accuracy_by_type
    aggregation: !function lmms_eval_task.accuracy_by_type
    higher_is_better: true
  - metric: quartet_accuracy
    aggregation: !function lmms_eval_task.quartet_accuracy
    higher_is_better: true
lmms_eval_specific_kwargs:
  default:
    post_prompt: {instruction}
metadata:
  version: 1
"""


def write(questions: list[Exported], folder: Path, name: str) -> list[Path]:
    """`<name>.yaml`, its code, and the questions as JSON lines."""
    data, task, code = folder / f"{name}.jsonl", folder / f"{name}.yaml", folder / _CODE.name
    columns = ("qa_id", "clip_id", "source_video", "quartet_id", "question", "options", "answer", "type")
    lines = [
        {
            **{name: getattr(question, name) for name in columns},
            "video": str((folder / question.video).absolute()),
            # lmms-eval adds the instruction.
            "prompt": prompt(question.question, question.options).removesuffix(INSTRUCTION),
        }
        for question in questions
    ]
    write_bytes(data, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
    write_bytes(task, _TASK.format(name=name, data=json.dumps(str(data.absolute())), instruction=INSTRUCTION).encode())
    with whole_file(code) as partial:
        shutil.copyfile(_CODE, partial)
    return [task, data, code]
