"""DINOv2: where its tokens lie, and how position embeddings fit other pictures. Parity: see pi3 and orientation."""

import pytest
import torch

from dsr.perception.dinov2 import PATCH, DinoV2, DinoV2Config


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 7), (5, 5), (9, 4)])
def test_tokens_of_pictures_of_any_shape(registers: int, rows: int, columns: int) -> None:
    model = DinoV2(DinoV2Config.tiny(registers)).eval()
    tokens = model(torch.randn(2, 3, rows * PATCH, columns * PATCH))
    assert tokens.cls.shape == (2, 32)
    assert tokens.registers.shape == (2, registers, 32)
    assert tokens.patches.shape == (2, rows * columns, 32)


def test_patches_are_in_reading_order() -> None:
    model = DinoV2(DinoV2Config.tiny())
    picture = torch.zeros(1, 3, 2 * PATCH, 3 * PATCH)
    picture[..., PATCH:, 2 * PATCH :] = 1  # second row, third column
    embedded = model.patch_embed(picture)[0]
    assert [not row.equal(embedded[0]) for row in embedded] == [False, False, False, False, False, True]


@pytest.mark.parametrize("registers", [0, 4])
def test_position_embeddings_of_the_training_grid_are_untouched(registers: int) -> None:
    model = DinoV2(DinoV2Config.tiny(registers))
    cls_position, positions = model._positions(5, 5)
    assert torch.cat([cls_position, positions], dim=1).equal(model.pos_embed)


@pytest.mark.parametrize("registers", [0, 4])
def test_a_ramp_of_position_embeddings_stays_a_ramp(registers: int) -> None:
    model = DinoV2(DinoV2Config.tiny(registers))
    with torch.no_grad():
        model.pos_embed[0, 1:] = torch.arange(5.0).repeat(5)[:, None]  # the column of each patch
        resized = model._positions(5, 10)[1][0, :, 0].view(5, 10)
    assert resized[0].tolist() == pytest.approx(resized[4].tolist(), abs=1e-5)
    assert (resized.diff(dim=1) > 0).all()
    # The middle of 10 patches is at 5 / 2 - 0.5 of the 5; models without registers scale by 10.1 / 5 instead of 2.
    scale = 2 if registers else 10.1 / 5
    assert float(resized[0, 4:6].mean()) == pytest.approx(5 / scale - 0.5, abs=0.005)
