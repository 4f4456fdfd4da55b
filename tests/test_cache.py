"""The two kinds of cache: they hold the same, and gradients flow through the growing one."""

import pytest
import torch
import torch.nn.functional as F

from lib.cache import BlockCache, GrowingCache


@pytest.mark.parametrize("static", [False, True])
def test_a_block_cache_keeps_its_memory(static):
    """Token by token it holds what was appended and zeros, and from the second growth on no new
    memory is asked for."""
    cache, new, places = BlockCache(2, 10, static), torch.randn(2, 3, 4, 10, 5), []
    for t in range(10):
        cache.expect(torch.ones(3, 1, dtype=torch.bool))
        for layer in range(2):
            (held,) = cache.append(layer, new[layer, :, :, t : t + 1])
            expected = F.pad(new[layer, :, :, : t + 1], (0, 0, 0, (t + 1) % 2))
            torch.testing.assert_close(held, expected, rtol=0, atol=0)
            assert held.is_contiguous()
        cache.length += 1
        held = [x for (x,) in cache.layers.values()]
        held += [] if cache.spare is None else [cache.spare]
        places.append({x.untyped_storage().data_ptr() for x in held})
    assert len(places[6]) == 3 and places[6] == places[8] == places[9]


def test_both_kinds_hold_the_same(tiny_model):
    tiny_model.eval()
    rows = torch.randint(3, 40, (3, 9))
    start = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, -1, -1], [0, -1, -1, -1, -1]])
    logits = []
    for cache in (GrowingCache(), BlockCache(4, 9), BlockCache(4, 9, static=True)):
        with torch.no_grad():
            tiny_model(rows[:, :5], cache, start)
            cache = cache.select(torch.tensor([2, 0, 0]))
            for t in range(3):
                here = torch.tensor([[1 + t], [5 + t], [5 + t]])
                logits.append(tiny_model(rows[:, 5 + t : 6 + t], cache, here))
    for a, b in zip(logits[:3] * 2, logits[3:]):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_gradients_flow_through_a_growing_cache(tiny_model):
    """Gathered at detached leaves and sent on = the gradient of the whole row."""
    row = torch.randint(3, 40, (1, 8))
    weight = torch.randn(1, 3, tiny_model.cfg.dim)
    (tiny_model(row, return_hidden=True)[:, 5:] * weight).sum().backward()
    expected = {n: p.grad.clone() for n, p in tiny_model.named_parameters() if p.grad is not None}
    tiny_model.zero_grad()
    cache = GrowingCache()
    tiny_model(row[:, :5], cache, return_hidden=True)
    leaves = cache.detached()
    for rows in (torch.tensor([0, 0]), torch.tensor([0])):  # three copies of the prompt share it
        copies = leaves.select(rows)
        out = tiny_model(row[:, 5:].expand(len(rows), -1), copies, return_hidden=True)
        (out * weight / 3).sum().backward()
    cache.backward(leaves)
    for n, p in tiny_model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, expected[n], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("static", [False, True])
def test_joined_caches_have_no_gaps(tiny_model, static):
    """Two rows that began with 4 and 2 tokens, padded to 5, and have come 3 tokens further, and a
    third: one more token, together and apart."""
    rows = [torch.randint(3, 40, (n,)) for n in (7, 5, 20)]
    caches = [BlockCache(4, 0, static), BlockCache(4, 0, static)]
    with torch.no_grad():
        tiny_model.eval()
        begun = torch.stack([F.pad(rows[0][:4], (0, 1)), F.pad(rows[1][:2], (0, 3))])
        positions = torch.tensor([[0, 1, 2, 3, -1], [0, 1, -1, -1, -1]])
        tiny_model(begun, caches[0], positions=positions)
        for i in range(3):
            tokens = torch.stack([rows[0][4 + i], rows[1][2 + i]])[:, None]
            tiny_model(tokens, caches[0], positions=torch.tensor([[4 + i], [2 + i]]))
        tiny_model(rows[2][None], caches[1])
        both = BlockCache.join(caches)
        assert caches[0].length == 8 and both.length == 20 and both.valid.shape == (3, 20)
        slots = [v.nonzero()[:, 0].tolist() for v in both.valid]
        assert slots == [list(range(n)) for n in (7, 5, 20)] and both.static == static
        new, places = torch.tensor([[7], [8], [9]]), torch.tensor([[7], [5], [20]])
        together = tiny_model(new, both, positions=places)[:, 0]
        apart = [tiny_model(torch.cat([row, n])[None])[0, -1] for row, n in zip(rows, new)]
    torch.testing.assert_close(together, torch.stack(apart), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [[0], [2, 2, 1]])
def test_selected_rows_are_copies(rows):
    cache = GrowingCache()
    cache.expect(torch.ones(3, 4, dtype=torch.bool))
    x = torch.randn(3, 1, 4, 2)
    cache.append(0, x)
    (picked,) = cache.select(torch.tensor(rows)).layers[0]
    assert torch.equal(picked, x[rows]) and picked.data_ptr() != x.data_ptr()
