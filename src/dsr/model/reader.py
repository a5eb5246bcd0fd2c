"""Question reader: the things, moments and form that a question's text is about, as a condenser can ask for them.

- Input: the language model's token embeddings of the question's line. Two blocks of the GSM's kind attend from each
  token to all others, one more from eleven slots to the tokens: viewer, targets a, b and c, six key moments, form.
- A label is pointed at, not named: where its slot attends, there its words are. So names work that no reader has seen.
- Its input is brought to a root mean square of one: it can be used on any language model.
- It reads text alone, and is pre-trained on texts alone (experiments/pretrain).

Letters: b questions, l tokens of a line, d width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from dsr.model.address import MIDDLE, Address, draw, label
from dsr.model.gsm import NORM_EPS, Look, QFormer
from dsr.model.transformers_versions import MultimodalRotaryEmbedding

LAYERS = 2
LABELS = 4
"""Slots of viewer and targets a, b, c."""
MOMENTS = 6
"""Slots of key moments; a question with fewer repeats its last."""
SLOTS = LABELS + MOMENTS + 1
"""The last slot is the form's."""
ROLE_SCALE = 0.2
"""Size of the mark of a slot's role beside its address."""


class Reading(NamedTuple):  # DeepSpeed finds no tensors in a dataclass
    """Content of a question's line."""

    attention: Tensor
    """[b, SLOTS, l] share of each slot's attention that a token has; adds up to one over the line."""
    absent: Tensor
    """[b, LABELS] logits that a question has no such thing."""
    seconds: Tensor
    """[b, MOMENTS] times of the key moments in seconds of the clip."""
    form: Tensor
    """[b, d] state of the form's slot."""

    @property
    def pointers(self) -> Tensor:
        """[b, LABELS, l] where the labels of viewer, a, b, c are."""
        return self.attention[:, :LABELS]

    def labels(self, words: Tensor) -> Tensor:
        """[b, LABELS, d] labels out of the line's token embeddings [b, l, d]; near zero for what is absent."""
        named = label(words[:, None], self.pointers)
        return named * torch.sigmoid(-self.absent)[..., None].to(named)


class QuestionReader(nn.Module):
    """Reads questions.

    Args:
        config: text configuration of the language model.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        d = config.hidden_size
        self.layers = nn.ModuleList(QFormer(config) for _ in range(LAYERS))
        self.slots = nn.Parameter(torch.empty(SLOTS, d))
        self.pool = QFormer(config)
        self.norm = Qwen2RMSNorm(d, eps=NORM_EPS)
        self.absent = nn.Linear(d, 1)
        self.seconds = nn.Linear(d, 1)
        self.rotary = MultimodalRotaryEmbedding(config=config)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.slots)
        for linear in (self.absent, self.seconds):
            draw(linear)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Reading:
        """Read a batch of lines.

        Args:
            embeddings: [b, l, d] of each line's tokens.
            mask: [b, l] bool, False is padding.
        """
        b, length = mask.shape
        device = embeddings.device
        states = F.rms_norm(embeddings, embeddings.shape[-1:])
        order = self.rotary(states, torch.arange(length, device=device).expand(3, b, -1))
        for layer in self.layers:
            states = layer(states, states, mask, order, order)
        slots = self.slots.to(states.dtype).expand(b, -1, -1)
        # A slot stands nowhere: it looks for a token by what it says, wherever that is.
        still, anywhere = (
            self.rotary(x, torch.zeros(3, b, x.shape[1], dtype=torch.long, device=device)) for x in (slots, states)
        )
        slots, log_probs = self.pool(slots, states, mask, still, anywhere, look=Look())
        slots = self.norm(slots)
        return Reading(
            attention=log_probs.exp().mean(1),
            absent=self.absent(slots[:, :LABELS])[..., 0],
            seconds=MIDDLE + MIDDLE * self.seconds(slots[:, LABELS:-1])[..., 0].float(),
            form=slots[:, -1],
        )


class QuestionSlots(nn.Module):
    """States of a reading that the GSM's condenser attends to, with addresses as the 3D tokens have them."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.form = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.roles = nn.Parameter(torch.empty(SLOTS, config.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw(self.form)
        nn.init.normal_(self.roles, std=ROLE_SCALE)

    def forward(self, reading: Reading, words: Tensor, address: Address) -> tuple[Tensor, Tensor]:
        """States [b, SLOTS, d] and where they say something, [b, SLOTS] bool: no slot of an absent thing does.

        Moments come first, then the form and the things, so that geometry token i stands where moment i does.

        Args:
            words: [b, l, d] token embeddings of the line that was read.
        """
        labels = reading.labels(words)
        states = [
            address.time(reading.seconds),
            self.form(reading.form)[:, None],
            address.viewer(labels[:, :1]),
            address.target(labels[:, 1:]),
        ]
        present = reading.absent < 0
        mask = torch.cat([torch.ones_like(present[:, :1]).expand(-1, MOMENTS + 1), present], dim=1)
        return torch.cat(states, dim=1) + self.roles.to(labels.dtype), mask
