"""One vector for each picture: slices approximate the likelihood, fit into their room, and are read back."""

from dataclasses import replace

import pytest
import torch

from dqecir.errors import DataError
from dqecir.methods.score_rules import SMOOTHING
from dqecir.methods.value_vectors import MOST_NUMBERS, SlicedValues, ValueSlices, slice_widths


def shares(rows: int, size: int, seed: int, sharpness: float = 3.0) -> torch.Tensor:
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))
    return (sharpness * logits).softmax(dim=1)


def products(layout: ValueSlices, wanted: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return products [B, N] of queries and targets of a single column without a base."""
    targets = layout.targets(torch.zeros(len(shown), 1, layout.width), [shown])[:, 0]
    return layout.pieces([wanted])[:, 0, 0] @ targets.T


def centred(scores: torch.Tensor) -> torch.Tensor:
    return scores - scores.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("size", [2, 7, 40])
def test_one_product_comes_near_the_likelihood_and_nearer_than_the_expected_logarithm(size):
    layout = ValueSlices([size], 4)
    wanted, shown = shares(30, size, seed=11), shares(200, size, seed=12)
    term = (wanted @ shown.T + SMOOTHING).log()
    found = centred(products(layout, wanted, shown) - term).square()
    expected = centred(wanted @ (shown + SMOOTHING).log().T - term).square()
    fits = wanted @ shown.T > 0.2  # what decides the first results
    assert found[fits].mean() < 0.25 * expected[fits].mean()


def test_of_one_sure_value_the_product_is_the_likelihood():
    layout = ValueSlices([9], 4)
    wanted, shown = torch.eye(9), shares(50, 9, seed=3)
    term = (wanted @ shown.T + SMOOTHING).log()
    torch.testing.assert_close(centred(products(layout, wanted, shown)), centred(term), atol=2e-2, rtol=0)


def test_a_firm_column_tells_a_probable_value_from_a_sure_one():
    layout = ValueSlices([9, 3], 4)
    wanted, shown = (
        [shares(5, 9, seed=1), shares(5, 3, seed=2)],
        [shares(50, 9, seed=3), shares(50, 3, seed=4)],
    )
    targets = layout.targets(torch.zeros(50, 1, 4), shown)[:, 0]
    loose = SlicedValues(layout, torch.tensor([2.0, 1.0]))
    firm = replace(loose, firmness=torch.tensor([[10.0, 0.0]]).repeat(5, 1))
    gained = (firm.pieces(wanted) - loose.pieces(wanted))[:, :, 0] @ targets.T  # [B, C, N]
    torch.testing.assert_close(gained[:, 0], 20 * wanted[0] @ shown[0].T, atol=1e-4, rtol=1e-4)
    assert not gained[:, 1].any()


@pytest.mark.parametrize(
    ("sizes", "room", "widths"),
    [
        ([3, 5], 100, (6, 10)),
        ([3, 5], 16, (6, 10)),
        ([3, 50, 60], 56, (6, 25, 25)),
        ([200], 64, (64,)),
        ([1, 1, 1], 3, (1, 1, 1)),
    ],
)
def test_columns_share_the_room_and_only_the_widest_are_reduced(sizes, room, widths):
    assert slice_widths(sizes, room) == widths


def test_more_columns_than_numbers_are_refused():
    with pytest.raises(DataError, match="3 columns do not fit into the 2 numbers"):
        slice_widths([4, 4, 4], 2)


def test_a_picture_never_has_more_numbers_than_it_may():
    assert ValueSlices([300, 141, 46, 8], 128).shape[1] <= MOST_NUMBERS
    assert ValueSlices([15, 17, 4], 128).shape == (1, 128 + 2 * 36)


def alike(rows: int, size: int, seed: int) -> torch.Tensor:
    """Return distributions of values from five families."""
    families = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    logits = 2 * torch.randn(rows, 5, generator=torch.Generator().manual_seed(seed)) @ families
    return logits.softmax(dim=1)


def test_a_reduced_column_keeps_what_pictures_differ_in():
    size, wanted = 120, alike(30, 120, seed=5)
    whole, reduced, unseen = ValueSlices([size], 4), ValueSlices([size], 4, 34), ValueSlices([size], 4, 34)
    reduced.fit([alike(500, size, seed=6)])
    shown = alike(100, size, seed=7)
    right = centred(products(whole, wanted, shown))

    def error(layout):
        return float((centred(products(layout, wanted, shown)) - right).square().mean())

    assert error(reduced) < 0.05 * float(right.square().mean())
    assert error(reduced) < 0.5 * error(unseen)


def test_the_directions_are_kept_and_name_the_targets_where_a_column_is_reduced():
    layout = ValueSlices([50, 3], 4, 30)
    assert set(layout.target_state()) == {"slices.0.directions"}
    layout.fit([alike(100, 50, seed=1), shares(100, 3, seed=1)])
    again = ValueSlices([50, 3], 4, 30)
    again.load_state_dict(layout.state_dict())
    base, shown = torch.randn(6, 2, 4), [alike(6, 50, seed=2), shares(6, 3, seed=2)]
    assert torch.equal(again.targets(base, shown), layout.targets(base, shown))
    assert not ValueSlices([5, 3], 4).target_state()


def test_base_and_distributions_are_read_back():
    layout = ValueSlices([50, 3], 4, 60)
    layout.fit([alike(300, 50, seed=1), shares(300, 3, seed=1)])
    base, shown = torch.randn(6, 2, 4), [alike(6, 50, seed=2), shares(6, 3, seed=2)]
    found_base, found = layout.parted(layout.targets(base, shown).half())
    torch.testing.assert_close(found_base, base.mean(dim=1), atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1], shown[1], atol=2e-3, rtol=0)
    assert ((found[0] - shown[0]).abs().sum(dim=1) < 0.2).all()


def test_half_precision_of_training_leaves_slices_as_they_are():
    layout = ValueSlices([50, 3], 4, 40)
    wanted = [shares(4, 50, seed=1), shares(4, 3, seed=1)]
    with torch.autocast("cpu", torch.bfloat16):
        pieces, targets = layout.pieces(wanted), layout.targets(torch.zeros(4, 1, 4), wanted)
    assert torch.equal(pieces, layout.pieces(wanted))
    assert torch.equal(targets, layout.targets(torch.zeros(4, 1, 4), wanted))


def test_what_is_wanted_gets_a_gradient():
    wanted = shares(4, 6, seed=1).requires_grad_()
    layout = ValueSlices([6], 4)
    products(layout, wanted, shares(5, 6, seed=2))[:, 0].sum().backward()
    assert wanted.grad is not None and wanted.grad.isfinite().all() and wanted.grad.any()
