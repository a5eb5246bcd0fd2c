"""Rotary position embedding and blocks, by hand."""

import math

import pytest
import torch

from dsr.perception.transformer import Rotary, TransformerBlock, computing_in, default_dtype, patch_positions


def test_patches_are_counted_in_reading_order() -> None:
    assert patch_positions(2, 3, torch.device("cpu")).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_a_head_of_four_turns_one_pair_with_y_and_one_with_x() -> None:
    rotary = Rotary.at(torch.tensor([[1, 2]]), head_width=4, base=100.0)
    turned = rotary(torch.tensor([[1.0, 0, 1, 0]]))
    assert turned[0].tolist() == pytest.approx([math.cos(1), math.sin(1), math.cos(2), math.sin(2)])


def test_the_second_pair_turns_more_slowly_by_the_root_of_the_base() -> None:
    rotary = Rotary.at(torch.tensor([[1, 0]]), head_width=8, base=100.0)
    # y's four values are two pairs, (0, 2) at 1 radian a patch and (1, 3) at 100 ** -1/2.
    turned = rotary(torch.tensor([[1.0, 1, 0, 0, 1, 1, 0, 0]]))
    assert turned[0].tolist() == pytest.approx([math.cos(1), math.cos(0.1), math.sin(1), math.sin(0.1), 1, 1, 0, 0])


def test_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 8)
    positions = torch.tensor([[0, 0], [2, 5], [3, 1], [5, 6]])
    q_turned, k_turned = (Rotary.at(positions, 8, 100.0)(x.expand(4, 8)) for x in (q, k))
    torch.testing.assert_close(q_turned[0] @ k_turned[1], q_turned[2] @ k_turned[3])
    torch.testing.assert_close(q_turned[0], q)


def test_frames_repeat_the_positions() -> None:
    rotary = Rotary.at(patch_positions(1, 2, torch.device("cpu")), 4, 100.0).repeat(3)
    assert rotary.cos.shape == (6, 4)
    assert rotary.cos[0].tolist() == rotary.cos[2].tolist() == rotary.cos[4].tolist()


def test_a_block_whose_branches_are_scaled_to_nothing_passes_its_input() -> None:
    x = torch.randn(2, 3, 8)
    assert TransformerBlock(8, 2, layer_scale=0.0)(x).equal(x)
    assert not TransformerBlock(8, 2)(x).equal(x)


def test_precision_follows_the_device() -> None:
    assert (default_dtype("cpu"), default_dtype("cuda:1")) == (torch.float32, torch.bfloat16)
    layer, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    for dtype in (torch.float32, torch.bfloat16):
        with computing_in(dtype, torch.device("cpu")):
            assert layer(x).dtype == dtype
