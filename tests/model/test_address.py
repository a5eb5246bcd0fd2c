"""Addresses: parts of a width that do not touch, names of any words, times that are nearest to themselves."""

import pytest
import torch
from transformers import Qwen2_5_VLConfig

from dsr.model.address import TIME_FEATURES, Address, label, time_features


def make_address(d: int) -> Address:
    torch.manual_seed(0)
    return Address(Qwen2_5_VLConfig(text_config={"hidden_size": d, "vocab_size": 10}).text_config)


@pytest.mark.parametrize("d", [24, 128, 130])
@torch.no_grad()
def test_every_part_has_places_of_its_own_and_together_they_are_the_width(d: int) -> None:
    address, ones = make_address(d), torch.ones(d)
    for linear in (address.viewer_map, address.target_map):
        torch.nn.init.constant_(linear.weight, 1.0)
    torch.nn.init.constant_(address.time_map.bias, 100.0)
    parts = [
        torch.nn.functional.pad(torch.ones(d // 2), (0, d - d // 2)),
        address.viewer(ones),
        address.target(ones),
        address.time(torch.tensor(1.0)),
    ]
    assert torch.stack([part != 0 for part in parts]).sum(0).tolist() == [1] * d
    assert [int((part != 0).sum()) for part in parts[:3]] == [d // 2, d // 6, d // 6]
    labels, things = torch.stack([2 * ones, ones])[None], torch.tensor([[[1, 1]]])
    token = address.token(torch.ones(1, 1, d // 2), torch.ones(1, 1), labels, things)
    torch.testing.assert_close(token[0, 0], torch.stack(parts).sum(0))
    torch.testing.assert_close(
        address.token(torch.ones(1, 1, d // 2), torch.ones(1, 1), labels, things[..., 1:])[0, 0],
        torch.stack([parts[0], *parts[2:]]).sum(0),
    )


def test_a_label_is_the_mean_of_its_words_at_size_one() -> None:
    words = torch.tensor([[3.0, 0], [0, 4.0], [9, 9]])
    # The mean of the first two is (1.5, 2), whose root mean square is sqrt(3.125).
    found = label(words, torch.tensor([True, True, False]))
    assert found.tolist() == pytest.approx([1.5 / 3.125**0.5, 2 / 3.125**0.5])
    torch.testing.assert_close(label(words, torch.tensor([0.2, 0.2, 0])), found)
    assert label(words, torch.zeros(3)).tolist() == [0, 0]


def test_features_of_a_time_by_hand() -> None:
    features = time_features(torch.tensor([4.0, 2.0, 1000.0]))
    assert features.shape == (3, TIME_FEATURES)
    assert features[0, :2].tolist() == [0, 0]
    assert features[1, :2].tolist() == [-1, 0.5]
    assert features[2, :2].tolist() == [4, 8]
    # Periods of 1, 2, 4, 8 s: at 2 s whole turns, then a half and a quarter.
    assert features[1, 2:6].tolist() == pytest.approx([0, 0, 0, 1], abs=1e-5)
    assert features[1, 9:13].tolist() == pytest.approx([1, 1, -1, 0], abs=1e-5)


@torch.no_grad()
def test_a_time_is_nearest_to_itself() -> None:
    address = make_address(128)
    told = torch.nn.functional.normalize(address.time(torch.arange(0, 8, 0.4)), dim=-1)
    assert (told @ told.T).argmax(-1).tolist() == list(range(20))


@torch.no_grad()
def test_parts_of_an_address_are_as_large_at_any_width() -> None:
    for d in (128, 1024):
        address, generator = make_address(d), torch.Generator().manual_seed(1)
        name = label(torch.randn(1, d, generator=generator), torch.ones(1))
        size = address.target(name).square().sum() / (d // 6)
        assert 1.0 < float(size) < 4.0
