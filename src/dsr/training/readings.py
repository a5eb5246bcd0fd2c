"""Readings of a run's questions by a question reader that stays as it is: every question is read once.

What a change does to a question's names and clock (dsr.training.guidance) is done to its reading: where the words of a
name are pointed at, those of another are, and the key moments are later.

Letters: b questions, l tokens of a line.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from dsr.model.chat import encode
from dsr.model.qwen2_5_vl_gsm import Qwen2_5_VLGSMForConditionalGeneration
from dsr.training.guidance import GuidedExample

_BATCH = 64


@dataclass(frozen=True)
class _Line:
    """Tokens of a question's line, and its reading."""

    ids: list[int]
    attention: np.ndarray
    """[SLOTS, l]."""
    rest: dict[str, torch.Tensor]
    """The other parts of a reading."""


class Readings:
    """Readings of questions as the model's GSM takes them.

    Args:
        model: with a question reader.
        examples: all that will be asked, as they are before any change.
    """

    def __init__(
        self, model: Qwen2_5_VLGSMForConditionalGeneration, tokenizer: Any, examples: Iterable[GuidedExample]
    ) -> None:
        self._tokenizer = tokenizer
        self._lines: dict[str, _Line] = {}
        self._names: dict[str, list[int]] = {}
        own = {example.qa_id: example.question for example in examples}
        ids = dict(zip(own, encode(tokenizer, list(own.values())), strict=True)) if own else {}
        # Lines of one length together: there is little padding.
        order = sorted(ids, key=lambda qa_id: (len(ids[qa_id]), qa_id))
        for start in range(0, len(order), _BATCH):
            self._read(model, {qa_id: ids[qa_id] for qa_id in order[start : start + _BATCH]})

    @torch.no_grad()
    def _read(self, model: Qwen2_5_VLGSMForConditionalGeneration, ids: Mapping[str, list[int]]) -> None:
        device = model.get_input_embeddings().weight.device
        lines = pad_sequence([torch.tensor(line) for line in ids.values()], batch_first=True).to(device)
        lengths = torch.tensor([len(line) for line in ids.values()], device=device)
        mask = torch.arange(lines.shape[1], device=device) < lengths[:, None]
        reading = model.model.reader(model.get_input_embeddings()(lines), mask)._asdict()
        reading = {name: part.cpu() for name, part in reading.items()}
        attention = reading.pop("attention").float().numpy()
        for row, (qa_id, line) in enumerate(ids.items()):
            rest = {name: part[row].clone() for name, part in reading.items()}
            self._lines[qa_id] = _Line(line, attention[row, :, : len(line)].copy(), rest)

    def of(self, examples: Sequence[GuidedExample]) -> dict[str, Any]:
        """Inputs of Qwen2_5_VLGSMModel.select about the questions: question_ids, question_mask and `reading`."""
        ids, attention = zip(*(self._changed(example) for example in examples), strict=True)
        rests = [self._lines[example.qa_id].rest for example in examples]
        reading = {name: torch.stack([rest[name] for rest in rests]) for name in rests[0]}
        reading["seconds"] = reading["seconds"] + torch.tensor([[e.change.shift] for e in examples])
        lengths = torch.tensor([len(line) for line in ids])
        return {
            "question_ids": pad_sequence([torch.tensor(line) for line in ids], batch_first=True),
            "question_mask": torch.arange(int(lengths.max())) < lengths[:, None],
            "reading": {
                "attention": pad_sequence([torch.from_numpy(a.T) for a in attention], batch_first=True).mT,
                **reading,
            },
        }

    def _changed(self, example: GuidedExample) -> tuple[list[int], np.ndarray]:
        """Tokens, and attention [SLOTS, l], of a line in which names are exchanged."""
        line, names = self._lines[example.qa_id], example.change.names
        exchanged = [(self._words(name), self._words(names[name])) for name in {*example.labels} & {*names}]
        # "robot dog" before "robot".
        exchanged.sort(key=lambda pair: -len(pair[0]))
        if not exchanged:
            return line.ids, line.attention
        ids, starts, lengths, place = list[int](), list[int](), list[int](), 0
        while place < len(line.ids):
            here = line.ids[place : place + 1]
            named = (pair for pair in exchanged if line.ids[place : place + len(pair[0])] == pair[0])
            old, new = next(named, (here, here))
            starts.append(place)
            lengths.append(len(new))
            ids += new
            place += len(old)
        pointed = np.add.reduceat(line.attention, starts, axis=1) / np.array(lengths, np.float32)
        return ids, np.repeat(pointed, lengths, axis=1)

    def _words(self, name: str) -> list[int]:
        """Tokens of a name inside a sentence."""
        if name not in self._names:
            self._names[name] = encode(self._tokenizer, [f" {name}"])[0]
        return self._names[name]
