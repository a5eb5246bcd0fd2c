"""Make models/tiny: `python -m experiments.pretrain --work <folder>`; a run that was stopped goes on from that folder.

One thread; the same seed gives the same files on the same machine.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dsr.files import sha256_file, write_json
from dsr.model import presets
from dsr.model.reader import QuestionReader
from dsr.params import GSM
from experiments.pretrain import language, reading
from experiments.pretrain.embeddings import draw_embeddings, tokenizer_texts
from experiments.pretrain.texts import names

MAX_PIXELS = 4704
"""Pixels of a frame, as in params.yaml."""
FIRST_NORM = 0.3
"""Weight that the language model's last norm begins with: embeddings of size one would make its logits far too sure."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for what a stopped run goes on from")
    parser.add_argument("--out", type=Path, default=Path("models/tiny"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--language-steps", type=int, default=2000)
    parser.add_argument("--reader-steps", type=int, default=1000)
    parser.add_argument("--texts", action="store_true", help="write the questions that are seen, a line each, no model")
    arguments = parser.parse_args()
    if arguments.texts:
        print(*seen_questions(arguments.seed, arguments.language_steps, arguments.reader_steps), sep="\n")
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    model, processor = presets.tiny(GSM(fusion="none"), tokenizer_texts(arguments.seed), MAX_PIXELS)
    tokenizer = processor.tokenizer
    codes = draw_embeddings(tokenizer, model.config.text_config.hidden_size, arguments.seed)
    language_model = model.model.language_model
    with torch.no_grad():
        language_model.embed_tokens.weight.copy_(codes)
        language_model.norm.weight.fill_(FIRST_NORM)
    # As the weights are stored.
    codes = codes.half().float()
    language.match_words(language_model)
    torch.manual_seed(arguments.seed)
    reader = QuestionReader(model.config.text_config)
    figures: dict[str, Any] = {}
    kept = arguments.work / "reader.pt"
    if not kept.is_file():
        started = time.process_time()
        probes = reading.train_reader(reader, tokenizer, codes, arguments.reader_steps, arguments.seed, _report)
        seconds = time.process_time() - started
        torch.save({"reader": reader.state_dict(), "probes": probes.state_dict(), "seconds": seconds}, kept)
    state = torch.load(kept, weights_only=True)
    reader.load_state_dict(state["reader"])
    probes = reading.Probes(codes.shape[1])
    probes.load_state_dict(state["probes"])
    figures["reader"] = {"cpu_seconds": round(state["seconds"])} | {
        name: reading.measure_reader(
            reader, probes, tokenizer, codes, reading.draw_questions(known, 1024, 2), known.nouns[:300]
        )
        for name, known in (("names that it has seen", names()), ("names held out", names(True)))
    }
    print(json.dumps(figures["reader"], indent=1), flush=True)
    _save(arguments.out, model, processor, reader)

    def keep(step: int, found: dict[str, float]) -> None:
        _report(step, found)
        if step % 250 == 0:
            _save(arguments.out, model, processor, reader)

    language.train_language(
        model, tokenizer, codes, arguments.language_steps, arguments.seed, keep, arguments.work / "language.pt"
    )
    _save(arguments.out, model, processor, reader)
    figures["language"] = {
        f"{kind}, {name}": language.measure(model, tokenizer, codes, telling, 2, bare=kind == "options alone")
        for kind in ("options alone", "whole prompts")
        for name, telling in (
            ("told plainly", language.Telling()),
            ("half as hard", 0.5),
            ("as hard as in training", 1.0),
        )
    }
    digest = hashlib.sha256()
    for text in seen_questions(arguments.seed, arguments.language_steps, arguments.reader_steps):
        digest.update(f"{text}\n".encode())
    settings = {k: v for k, v in vars(arguments).items() if k.endswith("steps") or k == "seed"}
    files = {path.name: sha256_file(path) for path in sorted(arguments.out.glob("*.safetensors"))}
    write_json(
        arguments.out / "pretraining.json",
        settings | {"sha256_of_questions": digest.hexdigest(), "sha256_of_files": files, "figures": figures},
    )
    print(json.dumps(figures, indent=1))


def seen_questions(seed: int, language_steps: int, reader_steps: int) -> Iterator[str]:
    """All questions of a run, in its order, drawn again."""
    for step in range(reader_steps):
        yield from (question.text for question in reading.draw_batch(step, seed))
    for step in range(language_steps):
        questions, bare = language.step_questions(step, language_steps, seed)
        yield from () if bare else (question.text for question in questions)


def _save(folder: Path, model: Any, processor: Any, reader: QuestionReader) -> None:
    """Write a backbone's folder, its weights as float16."""
    # The head is the embeddings once more.
    states = {name: tensor.half() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(folder, state_dict=states)
    processor.save_pretrained(folder)
    save_file({name: tensor.half() for name, tensor in reader.state_dict().items()}, folder / presets.READER_FILE)


def _report(step: int, found: dict[str, float]) -> None:
    print(step, {name: round(value, 3) for name, value in found.items()}, f"{time.process_time():.0f} s", flush=True)


if __name__ == "__main__":
    main()
