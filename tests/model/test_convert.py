"""Checkpoints in the published layout: the same logits as the published class, and back without a change.

`published_logits.safetensors` was made by running the published class (github.com/Tiamat-Tech/DSR_Suite,
qwenvl/train/qwen_vl_spatial.py, transformers 4.51.3, eager attention, float32) at the sizes below, its DINOv2 made
small too, with the weights and inputs of `seeded` and `make_inputs`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsr.console import StageError
from dsr.mcq import PROMPTS, SYSTEM
from dsr.model import convert, load_model
from dsr.model.chat import build_prompt
from dsr.model.presets import backbone
from dsr.model.qwen2_5_vl_gsm import QWEN_SPECIAL_TOKENS, Qwen2_5_VLGSMConfig, Qwen2_5_VLGSMForConditionalGeneration
from dsr.params import GSM

EXPECTED = Path(__file__).parent / "published_logits.safetensors"
GRID = (4, 6, 8)
OPTIONS = ("A. a", "B. b", "C. c", "D. d")
SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_config": {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 48,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    },
}
ENCODER = {"width": 32, "depth": 2, "heads": 4, "grid": 5}


def seeded(name: str, shape: torch.Size) -> Tensor:
    """A parameter's values, from its published name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight", "layernorm.weight")):
        return 1 + 0.2 * noise
    return noise if name.endswith("q_former_queries") else 0.1 * noise


def make_model(**sizes: Any) -> Qwen2_5_VLGSMForConditionalGeneration:
    gsm = {**convert.PUBLISHED_GSM, "sizes": {"pi3": ENCODER}}
    return Qwen2_5_VLGSMForConditionalGeneration(Qwen2_5_VLGSMConfig(gsm=gsm, **{**SIZES, **sizes})).eval()


def file_name(name: str) -> str:
    """A parameter's name in this project's files, from its name in the module."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def make_inputs(answer: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)
    words = torch.randint(0, 5000, (40,), generator=generator).tolist()
    head = [151644, *words[:4], 151645, 198, 151644, 872, 198, 151652]
    ids = [*head, *[151656] * (48 + 32), 151653, *words[4:34], 151645, 198, 151644, 77091, 198]
    inputs = {
        "input_ids": torch.tensor([[*ids, 32, 151645] if answer else ids]),
        "pixel_values_videos": torch.randn(192, 1176, generator=generator),
        "video_grid_thw": torch.tensor([GRID]),
        "second_per_grid_ts": torch.tensor([0.73]),
    }
    if answer:
        inputs["labels"] = torch.tensor([[-100] * len(ids) + [32, 151645]])
    return inputs


@pytest.fixture(scope="module")
def model() -> Qwen2_5_VLGSMForConditionalGeneration:
    model = make_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(seeded(convert.published_name(file_name(name)), parameter.shape))
    return model


@torch.no_grad()
def test_logits_and_loss_are_those_of_the_published_class(model: Qwen2_5_VLGSMForConditionalGeneration) -> None:
    expected = load_file(EXPECTED)
    logits = model(**make_inputs(answer=False)).logits[0]
    torch.testing.assert_close(logits[:, expected["columns"]], expected["prompt"], atol=1e-4, rtol=0)
    trained = model(**make_inputs(answer=True))
    torch.testing.assert_close(trained.logits[0, -3:, expected["columns"]], expected["train"], atol=1e-4, rtol=0)
    torch.testing.assert_close(trained.loss[None], expected["train_loss"], atol=1e-4, rtol=0)
    inputs = make_inputs(answer=True)
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], None, inputs["video_grid_thw"], inputs["second_per_grid_ts"]
    )
    assert torch.equal(positions[:, 0], expected["positions"])


class FixtureTokenizer:
    """Has the tokens of `make_inputs` for the texts of a prompt."""

    all_special_ids = QWEN_SPECIAL_TOKENS

    def __init__(self, ids: list[int]) -> None:
        question = ids[ids.index(151653) + 1 :][:30]
        lead, opening, *options = PROMPTS["published"].pieces("Q", OPTIONS)[:-1]
        self.known = {
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n": ids[: ids.index(151652)],
            "<|vision_start|>": [151652],
            "<|video_pad|>": [151656],
            "<|vision_end|>": [151653],
            "<|im_end|>\n": [151645, 198],
            "<|im_start|>assistant\n": [151644, 77091, 198],
            "A<|im_end|>": [32, 151645],
            "": [],
            lead: question[:1],
            "Q": question[1:4],
            opening: question[1:10],
            **{option: question[10 + 5 * i :][:5] for i, option in enumerate(options)},
        }

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.known[text] for text in texts]}


@torch.no_grad()
@pytest.mark.parametrize(("answer", "part"), [("", "prompt"), ("A", "train")])
def test_prompts_of_this_project_give_the_published_logits(
    answer: str, part: str, model: Qwen2_5_VLGSMForConditionalGeneration
) -> None:
    expected, inputs = load_file(EXPECTED), make_inputs(answer=bool(answer))
    tokenizer: Any = FixtureTokenizer(inputs["input_ids"][0].tolist())
    made = build_prompt(tokenizer, "Q", OPTIONS, video_tokens=80, answer=answer, form="published")
    assert made.input_ids == inputs["input_ids"][0].tolist()
    assert sum(made.asks) == 40 - 2 * bool(answer)
    logits = model(**inputs | {"labels": None, "question_mask": torch.tensor([made.asks])}).logits[0]
    read = logits if part == "prompt" else logits[-3:]
    torch.testing.assert_close(read[:, expected["columns"]], expected[part], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in our layout in several files, with a small vocabulary."""
    folder = tmp_path_factory.mktemp("small") / "ours"
    torch.manual_seed(0)
    make_model(vocab_size=100).save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    (folder / "tokenizer.json").write_text("{}")
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_there_and_back_changes_no_byte(small: Path, tmp_path: Path) -> None:
    convert.run(small, tmp_path / "published", "published")
    published, ours = tensors(tmp_path / "published"), tensors(small)
    assert {"visual.q_former_queries", "visual.spatial_merger.ln_q.weight", "model.norm.weight"} <= published.keys()
    assert not any(".gsm." in name or ".geometry." in name for name in published)
    assert torch.equal(
        published["visual.q_former_1.attn.q_proj.weight"], ours["model.gsm.condenser.attn.q_proj.weight"]
    )
    index = json.loads((tmp_path / "published" / convert.INDEX).read_text())["weight_map"]
    for name, file in index.items():
        with safe_open(tmp_path / "published" / file, framework="pt") as shard:
            assert name in shard.keys()  # noqa: SIM118
    config = json.loads((tmp_path / "published/config.json").read_text())
    assert (config["model_type"], config["hidden_size"], config["vocab_size"]) == ("qwen2_5_vl", 48, 100)

    # What the published class does to its configuration.
    config["vision_config"]["hidden_size"] = 48
    (tmp_path / "published/config.json").write_text(json.dumps(config))
    convert.run(tmp_path / "published", tmp_path / "again", "ours")
    again = tensors(tmp_path / "again")
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())
    assert (tmp_path / "again/tokenizer.json").read_text() == "{}"
    loaded, info = Qwen2_5_VLGSMForConditionalGeneration.from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not any(info.values())
    assert loaded.config.vision_config.hidden_size == 32
    assert loaded.config.gsm == make_model(vocab_size=100).config.gsm | {"sizes": {"pi3": {**ENCODER, "heads": 1}}}
    assert (loaded.config.prompt, json.loads((small / "config.json").read_text()).get("prompt")) == ("published", None)
    convert.run(tmp_path / "again", tmp_path / "and back", "published")
    assert "prompt" not in json.loads((tmp_path / "and back/config.json").read_text())


def test_the_mask_token_is_left_out(small: Path, tmp_path: Path) -> None:
    convert.run(small, tmp_path / "published", "published")
    file = min((tmp_path / "published").glob("*.safetensors"))
    save_file({**load_file(file), convert.UNUSED[0]: torch.zeros(1, 32)}, file)
    index = json.loads((tmp_path / "published" / convert.INDEX).read_text())
    index["weight_map"][convert.UNUSED[0]] = file.name
    (tmp_path / "published" / convert.INDEX).write_text(json.dumps(index))
    convert.run(tmp_path / "published", tmp_path / "again", "ours")
    assert tensors(tmp_path / "again").keys() == tensors(small).keys()


def cut(folder: Path) -> None:
    path = min(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-5])


def forget(folder: Path) -> None:
    min(folder.glob("*.safetensors")).unlink()


def spoil(folder: Path) -> None:
    min(folder.glob("*.safetensors")).write_bytes(b"nothing at all")


def widen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["gsm"]["num_tokens"] = 16
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "its header says"),
        (forget, "does not exist, but"),
        (spoil, "not a safetensors file"),
        (widen, "'num_tokens': 16.*the published class holds"),
        (lambda folder: (folder / "config.json").unlink(), "name the folder of a checkpoint"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
    ],
)
def test_what_cannot_be_converted_is_named_and_nothing_is_left(
    damage: Any, message: str, small: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in small.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    damage(source)
    with pytest.raises(StageError, match=message):
        convert.run(source, tmp_path / "target", "published")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unconverted_folder_is_refused(small: Path, tmp_path: Path) -> None:
    convert.run(small, tmp_path / "published", "published")
    for read in (load_model, lambda folder: backbone(folder, GSM(), 0, torch.float32)):
        with pytest.raises(StageError, match=r"published layout.*dsr convert .*published <new folder>"):
            read(tmp_path / "published")
    convert.refuse_unconverted(small)


def test_another_clock_than_the_published_one_is_refused(small: Path, tmp_path: Path) -> None:
    convert.run(small, tmp_path / "published", "published")
    path = tmp_path / "published/config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["tokens_per_second"] = 4
    path.write_text(json.dumps(config))
    with pytest.raises(StageError, match=r"tokens_per_second is 4, and the published GSM counts 2"):
        convert.run(tmp_path / "published", tmp_path / "ours", "ours")


def test_a_plain_model_and_a_full_folder_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="holds no published GSM"):
        convert.run(small, tmp_path / "target", "ours")
    with pytest.raises(StageError, match="not empty"):
        convert.run(small, small, "published")
