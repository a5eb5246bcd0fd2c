"""The question reader: what padding may not change, names by their words, and slots with the addresses of 3D tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig, Qwen2_5_VLConfig

from dsr.model.address import Address
from dsr.model.reader import LABELS, MOMENTS, SLOTS, QuestionReader, QuestionSlots, Reading

D = 32


def make_config() -> PretrainedConfig:
    sizes = {"hidden_size": D, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    rope = {"type": "mrope", "mrope_section": [4, 2, 2]}
    return Qwen2_5_VLConfig(text_config={**sizes, "vocab_size": 50, "rope_scaling": rope}).text_config


def make_reader() -> QuestionReader:
    torch.manual_seed(0)
    return QuestionReader(make_config()).eval()


def make_reading(pointers: Tensor, absent: list[float], seconds: list[float]) -> Reading:
    """A reading of one question: pointers [LABELS, l]."""
    attention = torch.cat([pointers, torch.zeros(SLOTS - LABELS, pointers.shape[1])])
    return Reading(attention[None], torch.tensor([absent]), torch.tensor([seconds]), torch.ones(1, D))


@torch.no_grad()
def test_a_batch_reads_what_its_questions_read_alone() -> None:
    reader, embeddings = make_reader(), torch.randn(2, 7, D)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    together = reader(embeddings, mask)
    alone = reader(embeddings[1:, :4], mask[1:, :4])
    assert together.attention.shape == (2, SLOTS, 7)
    assert (together.attention[1, :, 4:] == 0).all()
    torch.testing.assert_close(together.attention.sum(-1), torch.ones(2, SLOTS))
    torch.testing.assert_close(together.attention[1:, :, :4], alone.attention)
    for name, shape in (("absent", (LABELS,)), ("seconds", (MOMENTS,)), ("form", (D,))):
        one, other = getattr(together, name)[1:], getattr(alone, name)
        assert other.shape == (1, *shape)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_words_is_read() -> None:
    reader, embeddings, mask = make_reader(), torch.randn(1, 6, D), torch.ones(1, 6, dtype=torch.bool)
    assert not torch.allclose(reader(embeddings, mask).form, reader(embeddings.flip(1), mask).form, atol=1e-3)


def test_attention_learns_to_point_at_a_word_after_another() -> None:
    """What pre-training does: the viewer's slot is to find the word after word 1, wherever it is and whatever it is."""
    torch.manual_seed(0)
    reader, words = make_reader(), torch.nn.Embedding(50, D)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        ids = torch.randint(2, 50, (32, 10), generator=generator)
        place = torch.randint(0, 9, (32,), generator=generator)
        ids[torch.arange(32), place] = 1
        return ids, place + 1

    def pointers(ids: Tensor) -> Tensor:
        return reader(words(ids).detach(), torch.ones_like(ids, dtype=torch.bool)).pointers[:, 0]

    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        ids, place = batch(generator)
        loss = F.nll_loss((pointers(ids) + 1e-9).log(), place)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids, place = batch(generator)
    assert (pointers(ids).argmax(-1) == place).float().mean() > 0.9


@torch.no_grad()
def test_a_slot_has_the_address_of_the_token_that_it_asks_for() -> None:
    torch.manual_seed(0)
    address, slots = Address(make_config()), QuestionSlots(make_config())
    words = torch.randn(1, 5, D)
    # "a robot sees a red ball": the viewer is word 1, a is words 3 and 4.
    pointers = torch.zeros(LABELS, 5)
    pointers[0, 1], pointers[1, 3:] = 1, 0.5
    reading = make_reading(pointers, [-50.0, -50.0, 50.0, 50.0], [0.0, 1, 2, 3, 4, 4])
    states, mask = slots(reading, words, address)
    assert states.shape == (1, SLOTS, D)
    assert mask[0].tolist() == [True] * (MOMENTS + 1) + [True, True, False, False]
    bare = (states - slots.roles)[0]

    def size_one(x: Tensor) -> Tensor:
        return x / x.square().mean().sqrt()

    torch.testing.assert_close(bare[2], address.time(torch.tensor(2.0)))
    torch.testing.assert_close(bare[MOMENTS + 1], address.viewer(size_one(words[0, 1])))
    torch.testing.assert_close(bare[MOMENTS + 2], address.target(size_one(words[0, 3:].mean(0))))
    torch.testing.assert_close(bare[MOMENTS + 3], torch.zeros(D))
