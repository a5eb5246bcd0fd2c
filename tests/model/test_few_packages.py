"""A machine with torch, transformers and few other packages can train and score, and says what else it lacks."""

import subprocess
import sys

import pytest

ABSENT = ("accelerate", "av", "cv2", "decord", "deepspeed", "dvc", "dvclive", "jinja2", "matplotlib", "peft")
ABSENT += ("pybullet", "pycocotools", "pydantic", "ruamel", "scipy", "sklearn", "tensorboard", "typer")
HIDE = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))"


def run(code: str) -> str:
    """Output of a process in which those packages cannot be imported."""
    return subprocess.run([sys.executable, "-c", f"{HIDE}\n{code}"], capture_output=True, text=True, check=True).stdout


def test_model_training_and_scoring_are_imported_without_other_packages() -> None:
    modules = (
        *("dsr.model.presets", "dsr.model.convert", "dsr.training.trainer", "dsr.examples.collate"),
        *("dsr.evaluation.scorers.checkpoint", "dsr.perception.pi3"),
    )
    assert run(f"import {', '.join(modules)}\nprint('imported')") == "imported\n"


@pytest.mark.parametrize(
    ("used", "remedy"),
    [
        ("import dsr.clips.video as m; m.av.open('a.mp4')", "av is not installed, and this needs it: pip install av"),
        (
            "import dsr.cues.schema as m; m.coco_mask.decode({})",
            "pycocotools is not installed, and this needs it: pip install pycocotools",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(used: str, remedy: str) -> None:
    caught = f"from dsr.console import StageError\ntry:\n    {used}\nexcept StageError as error:\n    print(error)"
    assert run(caught) == f"{remedy}\n"
