"""Both libraries' products, forward and backward, against float64."""

import pytest
import torch
import torch.nn.functional as F

from lib import products


@pytest.fixture(params=["mkl", "onednn"])
def library(request, monkeypatch):
    monkeypatch.setenv("CPU_PRODUCTS", request.param)
    return request.param


def gradients(function, *tensors):
    """The result and the gradients of a sum with fixed weights."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    out = function(*leaves)
    weights = torch.linspace(0.5, 1.5, out.numel()).to(out.dtype).view_as(out)
    (out * weights).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def agree(function, reference, *tensors):
    ours = gradients(function, *tensors)
    exact = gradients(reference, *(t.double() for t in tensors))
    for a, b in zip(ours, exact):
        assert a.dtype == torch.float32 and a.shape == b.shape
        assert (a - b).norm() < 1e-6 * b.norm() + 1e-9
    with torch.no_grad():
        assert torch.allclose(function(*tensors).double(), exact[0], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [(1,), (127,), (128,), (3, 100), (515,), (2, 4, 64)])
def test_linear(library, rows):
    torch.manual_seed(0)
    x, w, bias = torch.randn(*rows, 48), torch.randn(80, 48), torch.randn(80)
    agree(products.linear, F.linear, x, w)
    agree(products.linear, F.linear, x, w, bias)


def test_linear_module_is_torchs_in_all_but_the_product(library):
    ours, theirs = products.Linear(48, 32, bias=False), torch.nn.Linear(48, 32, bias=False)
    assert isinstance(ours, torch.nn.Linear)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(200, 48)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    frozen = products.Linear(48, 32).requires_grad_(False)
    x.requires_grad_()
    frozen(x).sum().backward()
    assert frozen.weight.grad is None and torch.allclose(x.grad[0], frozen.weight.sum(0), atol=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [[0, 0, 0, 0], [1, 0, 2, 3], [128, 0, 300, 84], [130, 1, 129, 255], [0, 5, 700, 0]],
)
def test_experts(library, sizes):
    """Rows that oneDNN rounds up are the next expert's; none are left at the end."""
    torch.manual_seed(0)
    ends = torch.tensor(sizes).cumsum(0).int()
    x, w = torch.randn(sum(sizes), 32), torch.randn(len(sizes), 32, 48)

    def one_by_one(x, w):
        return torch.cat([part @ w[e] for e, part in enumerate(x.split(sizes))])

    agree(lambda x, w: products.grouped_mm(x, w, ends), one_by_one, x, w)
    agree(lambda x, w: products.of_every_expert(x, w, ends), one_by_one, x, w)


def test_rows_for_onednn_are_rounded_up_to_what_is_there():
    # experts of 128, 0, 172 and 100 rows: 172 become 256, up to row 384
    found = list(products.parts([128, 128, 300, 400], 400))
    assert found == [(0, 0, 128, 128), (2, 128, 300, 384), (3, 300, 400, None)]
    assert list(products.parts([172], 200)) == [(0, 0, 172, None)]


def test_what_onednn_never_gets(monkeypatch):
    """Few rows, other dtypes, what is not on the CPU."""
    monkeypatch.setenv("CPU_PRODUCTS", "onednn")
    monkeypatch.setattr(products, "onednn", None)
    few, many, w = torch.ones(4, 8), torch.ones(200, 8), torch.ones(6, 8)
    assert products.linear(few, w).shape == (4, 6)
    assert products.linear(many.bfloat16(), w.bfloat16()).dtype == torch.bfloat16
    assert products.linear(many.double(), w.double()).dtype == torch.float64
    assert products.linear(many.to("meta"), w.to("meta")).device.type == "meta"


def test_the_faster_library_is_chosen(monkeypatch):
    times = {F.linear: 1.0, products.onednn: 1.0}
    monkeypatch.setattr(products, "seconds", lambda product, *_: times[product])
    monkeypatch.delenv("CPU_PRODUCTS", raising=False)
    for fast, expected in ((0.5, True), (0.95, False), (2.0, False)):
        times[products.onednn] = fast
        products.is_faster.cache_clear()
        assert products.use_onednn() == expected
    products.is_faster.cache_clear()
    monkeypatch.setenv("CPU_PRODUCTS", "mkl")
    assert not products.use_onednn()
    monkeypatch.setenv("CPU_PRODUCTS", "oneDNN")
    with pytest.raises(ValueError, match="CPU_PRODUCTS is 'oneDNN': use auto, mkl or onednn"):
        products.use_onednn()
