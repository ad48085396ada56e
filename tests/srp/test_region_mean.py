"""The mean over random regions against a slow loop, on maps small enough to try every region."""

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from each import each
from slow_regions import DTYPES, Corner, Size, all_corners, numbers_of, placements, slow_coverage, slow_mean
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.srp import region_mean as module
from srp_exp.srp.region import PLACEMENTS, RegionPlacement, corner_range
from srp_exp.srp.region_mean import region_mean, traced_region_mean

NOT_FINITE = [math.inf, -math.inf, math.nan]
MAP_SIZES = [(4, 4), (3, 5), (5, 2), (1, 4)]


def both_means(
    x: Tensor, corner_lists: list[list[Corner]], region: Size, placement: RegionPlacement
) -> dict[str, Callable[[], Tensor]]:
    """The mean as an eager step on a CPU makes it, and as compiled code and other devices do, with these corners."""
    numbers = numbers_of(corner_lists, region, (x.shape[-2], x.shape[-1]), placement)
    return {
        "product": lambda: region_mean(x, numbers, region, placement),
        "traced": lambda: traced_region_mean(x, numbers, region, placement),
    }


def coverage(mean: Callable[[], Tensor], x: Tensor, positions: int) -> Tensor:
    """How many regions cover each position (N, H, W), as the gradient of `mean` tells."""
    (gradient,) = torch.autograd.grad(mean().sum(), x)
    return (gradient * positions).round().int()[:, 0]


class TestEveryRegion:
    @each(map_size=MAP_SIZES)
    @placements
    def test_every_region_of_every_size(self, map_size: Size, placement: RegionPlacement) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region, placement)
            ranges = [corner_range(placement, side, map_side) for side, map_side in zip(region, map_size, strict=True)]
            assert len(corners) == ranges[0] * ranges[1]
            self.check(map_, [[corner] for corner in corners], region, placement)

    @each(map_size=MAP_SIZES, placement=PLACEMENTS)
    def test_overlapping_regions_count_with_multiplicity(self, map_size: Size, placement: RegionPlacement) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        region = (min(2, map_size[0]), 2)
        corners = all_corners(map_size, region, placement)
        threes = itertools.islice(itertools.combinations_with_replacement(corners, 3), 0, None, 3)
        self.check(map_, [list(three) for three in threes], region, placement)

    def check(self, map_: Tensor, corner_lists: list[list[Corner]], region: Size, placement: RegionPlacement) -> None:
        x = map_.expand(len(corner_lists), 1, *map_.shape).requires_grad_()
        size = (map_.shape[0], map_.shape[1])
        exact = torch.tensor([slow_mean(map_, corners, region) for corners in corner_lists], dtype=torch.float64)
        counts = torch.tensor([slow_coverage(corners, region, size) for corners in corner_lists])
        for name, mean in both_means(x, corner_lists, region, placement).items():
            assert mean().shape == (len(corner_lists), 1, 1, 1)
            torch.testing.assert_close(mean().flatten(), exact, rtol=1e-12, atol=1e-14, msg=name)
            assert torch.equal(coverage(mean, x, len(corner_lists[0]) * math.prod(region)), counts), name


class TestCoverage:
    """How often a position lies in a region when all corners are equally likely."""

    @each(map_size=MAP_SIZES)
    def test_wrap_covers_every_position_alike_and_is_unbiased(self, map_size: Size) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        exact_map = [[Fraction(value) for value in row] for row in map_.tolist()]
        average = sum(itertools.chain(*exact_map)) / math.prod(map_size)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            counts = self.counts(region, map_size, "wrap")
            assert {count for row in counts for count in row} == {math.prod(region)}
            pairs = zip(itertools.chain(*counts), itertools.chain(*exact_map), strict=True)
            total = sum(count * value for count, value in pairs)
            assert total / (math.prod(region) * math.prod(map_size)) == average  # E[z] = GAP, in exact arithmetic

    @each(map_size=MAP_SIZES)
    def test_corner_covers_as_the_formula_says(self, map_size: Size) -> None:
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            rows, columns = (self.formula(side, r) for side, r in zip(map_size, region, strict=True))
            assert self.counts(region, map_size, "corner") == [[row * column for column in columns] for row in rows]

    def test_corner_is_biased_towards_the_centre(self) -> None:
        """Of a 4 x 4 map with regions of 3 x 3, the centre is in all four regions and a corner in one."""
        assert self.counts((3, 3), (4, 4), "corner") == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]

    @staticmethod
    def formula(map_side: int, side: int) -> list[int]:
        """Corners t in 0..R-1 with t <= i < t + side, R = map_side - side + 1: min(i, R-1) - max(0, i-side+1) + 1."""
        last = map_side - side
        return [min(i, last) - max(0, i - side + 1) + 1 for i in range(map_side)]

    @staticmethod
    def counts(region: Size, map_size: Size, placement: RegionPlacement) -> list[list[int]]:
        corners = [[corner] for corner in all_corners(map_size, region, placement)]
        x = torch.zeros(len(corners), 1, *map_size, requires_grad=True)
        mean = both_means(x, corners, region, placement)["product"]
        return coverage(mean, x, math.prod(region)).sum(0).tolist()


@placements
def test_largest_random_number_stays_inside(placement: RegionPlacement) -> None:
    """A region of 1 x 1 in maps of 1 to 1,024 rows, with the largest float32 below 1: the last row."""
    numbers = torch.full((2, 1, 1), 1 - 2**-24)
    assert float(numbers[0, 0]) == 1 - 2**-24
    for rows in range(1, 1025):
        x = torch.arange(rows, dtype=torch.float64).view(1, 1, rows, 1)
        for mean in (region_mean, traced_region_mean):
            assert mean(x, numbers, (1, 1), placement).item() == rows - 1


class TestNotFinite:
    """Infinity and NaN count where they lie in a region, and nowhere else."""

    @each(placement=PLACEMENTS, regions=(1, 2), value=NOT_FINITE)
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_outside_has_no_influence(
        self, placement: RegionPlacement, dtype: torch.dtype, regions: int, value: float
    ) -> None:
        corner_lists = [[(0, 0), (2, 1)][:regions], [(3, 2), (3, 1)][:regions]]
        covered = torch.tensor([[slow_coverage(corners, (2, 3), (5, 6))] for corners in corner_lists]) > 0
        finite = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        results = []
        for outside in (0.0, value):
            x = torch.where(covered, finite, outside).requires_grad_()
            for name, mean in both_means(x, corner_lists, (2, 3), placement).items():
                pooled = mean()
                (gradient,) = torch.autograd.grad(pooled.sum(), x)
                results.append((name, pooled, gradient))
                assert pooled.isfinite().all(), name
                assert gradient.isfinite().all() and not gradient[~covered.expand_as(x)].any(), name
        for (name, *expected), (_, *actual) in zip(results[:2], results[2:], strict=True):
            assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True)), name

    @each(dtype=DTYPES, regions=(1, 2), value=NOT_FINITE)
    def test_inside_is_not_hidden(self, dtype: torch.dtype, regions: int, value: float) -> None:
        x = torch.ones(1, 2, 5, 6, dtype=dtype)
        x[0, 1, 1, 2] = value
        for name, mean in both_means(x, [[(0, 0), (0, 1)][:regions]], (2, 3), "corner").items():
            expected = torch.tensor([[1.0, value]], dtype=dtype)
            torch.testing.assert_close(mean().flatten(1), expected, equal_nan=True, msg=name)


class TestGradient:
    @each(regions=(1, 2), shape=[(4, 2, 4, 5), (4, 4, 5), (4, 2, 2, 4, 5)], drawn=(4, 2, 1))
    @placements
    def test_is_that_of_the_formula_in_plain_autograd(
        self, placement: RegionPlacement, regions: int, shape: tuple[int, ...], drawn: int
    ) -> None:
        """Maps of any number of axes; 4 / `drawn` samples in a row share their regions."""
        torch.manual_seed(0)
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        corners = [[(0, 2), (1, 1)], [(2, 0), (2, 1)], [(1, 2), (1, 2)], [(0, 0), (1, 0)]]
        corners = [of_sample[:regions] for of_sample in corners[:drawn]]
        counts = torch.tensor([slow_coverage(of_sample, (2, 3), (4, 5)) for of_sample in corners])
        counts = counts.repeat_interleave(4 // drawn, 0).view(4, *[1] * (x.dim() - 3), 4, 5)
        upstream = torch.randn(*shape[:-2], 1, 1, dtype=torch.float64)
        plain = (x * counts).sum((-2, -1), keepdim=True) / (6 * regions)
        (expected,) = torch.autograd.grad(plain, x, upstream)
        numbers = numbers_of(corners, (2, 3), (4, 5), placement)
        pooled = region_mean(x, numbers, (2, 3), placement)
        (gradient,) = torch.autograd.grad(pooled, x, upstream)
        torch.testing.assert_close(pooled, plain, rtol=1e-13, atol=1e-15)
        torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=0)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # by forward_ad
    @pytest.mark.parametrize(("placement", "regions"), [("corner", 1), ("wrap", 2)])
    def test_second_derivative_and_transforms(self, placement: RegionPlacement, regions: int) -> None:
        torch.manual_seed(0)
        x, tangent = torch.randn(2, 3, 2, 4, 5, dtype=torch.float64).unbind()
        numbers = torch.rand(2, 3, regions)
        expected = region_mean(tangent, numbers, (2, 3), placement)
        with forward_ad.dual_level():
            pooled = region_mean(forward_ad.make_dual(x, tangent), numbers, (2, 3), placement)
            torch.testing.assert_close(forward_ad.unpack_dual(pooled).tangent, expected)  # the mean is linear
        by_sample = torch.func.vmap(lambda map_, n: region_mean(map_[None], n[:, None], (2, 3), placement)[0], (0, 1))
        torch.testing.assert_close(by_sample(tangent, numbers), expected)
        assert torch.autograd.gradgradcheck(
            lambda x: region_mean(x, numbers, (2, 3), placement).square(), (x.requires_grad_(),)
        )

    @each(share=(4, 1))
    def test_lies_in_memory_as_the_map_does(self, share: int) -> None:
        x = torch.randn(4, 3, 5, 6)
        permuted = torch.randn(5, 4, 6, 3).permute(1, 3, 0, 2)
        for map_ in (
            x,
            x.contiguous(memory_format=torch.channels_last),
            permuted,
            x[:, :, 1:, ::2],
            x.expand(4, 3, 5, 6),
        ):
            leaf = map_.detach().requires_grad_()
            mean = region_mean(leaf, torch.rand(2, share, 1), (2, 3), "corner")
            (gradient,) = torch.autograd.grad(mean.sum(), leaf)
            assert gradient.stride() == torch.empty_like(leaf).stride()


class TestPrecision:
    @each(dtype=[torch.float16, torch.bfloat16], factor=[1.0, 1e4, 1e-5])
    def test_half_is_rounded_once(self, dtype: torch.dtype, factor: float) -> None:
        """What lies inside the region is summed in float32: nothing between map and mean over- or underflows."""
        x = ((torch.randn(3, 4, 6, 5).abs() + 1) * factor).to(dtype)
        corners = [[(0, 0)] * 2, [(2, 1)] * 2, [(3, 2)] * 2]
        for regions, memory_format in itertools.product((1, 2), (torch.contiguous_format, torch.channels_last)):
            map_ = x.contiguous(memory_format=memory_format)
            for name, mean in both_means(map_, [c[:regions] for c in corners], (3, 3), "corner").items():
                crops = [x[b, :, t : t + 3, c : c + 3].double().mean((1, 2)) for b, [(t, c), _] in enumerate(corners)]
                expected = torch.stack(crops)[..., None, None]
                error = (mean().double() - expected).abs()
                ulp = torch.finfo(dtype).eps * expected.abs().clamp(min=torch.finfo(dtype).tiny)
                assert (error <= 0.5001 * ulp).all(), name

    def test_lower_precision_of_matrix_products_is_not_that_of_a_mean(self) -> None:
        """torch.set_float32_matmul_precision("medium") lets a product of float32 round its factors to bfloat16."""
        x = torch.randn(64, 64, 32, 32, generator=torch.Generator().manual_seed(0)) + 3
        numbers = numbers_of([[(4, 7)]] * 64, (20, 20), (32, 32), "corner")
        expected = x[:, :, 4:24, 7:27].double().mean((2, 3), keepdim=True)
        before = torch.get_float32_matmul_precision()
        try:
            for precision in ("highest", "high", "medium"):
                torch.set_float32_matmul_precision(precision)
                mean = region_mean(x, numbers, (20, 20), "corner").double()
                torch.testing.assert_close(mean, expected, rtol=2e-6, atol=0, msg=precision)
        finally:
            torch.set_float32_matmul_precision(before)

    def test_autocast_leaves_it_alone(self) -> None:
        x, numbers = torch.randn(2, 3, 8, 8, requires_grad=True), torch.rand(2, 2, 1)
        (expected,) = torch.autograd.grad(region_mean(x, numbers, (4, 4), "corner").square().sum(), x)
        with torch.autocast("cpu", torch.bfloat16):
            mean = region_mean(x, numbers, (4, 4), "corner")
        assert mean.dtype == torch.float32
        assert torch.equal(torch.autograd.grad(mean.square().sum(), x)[0], expected)


class TestCompiled:
    @placements
    def test_a_ramped_side_is_a_tensor(self, placement: RegionPlacement) -> None:
        """One graph, whatever the side is."""
        torch._dynamo.reset()
        compiled = torch.compile(region_mean, backend="aot_eager", fullgraph=True)
        x, numbers = torch.randn(2, 3, 6, 5), torch.rand(2, 2, 2)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for side in (2, 3, 5):
                sides = (torch.tensor(side), torch.tensor(side))
                expected = region_mean(x, numbers, (side, side), placement)
                torch.testing.assert_close(compiled(x, numbers, sides, placement), expected)

    def test_no_modulo_and_no_int64(self) -> None:
        """A GPU takes many instructions for either, for each element of the map."""
        with Operations() as seen:
            traced_region_mean(torch.randn(2, 3, 6, 5), torch.rand(2, 2, 1), (2, 2), "wrap")
        assert not any("remainder" in name or "fmod" in name for name, _ in seen.calls)
        assert not any(dtype == torch.int64 for _, dtype in seen.calls)


class Operations(TorchDispatchMode):
    """Notes the name and the result's type of each operation in it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, torch.dtype]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **kwargs or {})
        self.calls += [(func.name(), result.dtype)] if isinstance(result, Tensor) else []
        return result


class TestKernel:
    """The branch for CUDA, without a GPU; tests/test_cuda.py has one."""

    @pytest.fixture(autouse=True)
    def needs_triton(self) -> None:
        pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

    def test_equals_a_slow_loop_in_the_interpreter(self) -> None:
        """In its own process: Triton decides at import whether it interprets."""
        script = Path(__file__).with_name("interpreted_kernel.py")
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        ("name", "dtype", "capability"), [("pool_kernel", "bf16", 80), ("spread_kernel", "fp64", 90)]
    )
    def test_compiles(
        self, dtype: str, name: str, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        from srp_exp.srp import region_kernel

        try:
            _ = triton.knobs.nvidia.ptxas
        except RuntimeError as error:
            pytest.skip(f"Triton finds no ptxas: {error}")
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
        constants = {"REGIONS": 2, "WRAP": True, "CHANNELS": 16, "POSITIONS": 128, "FLAT": True}
        kernel = getattr(region_kernel, name)
        types = dict.fromkeys(("x", "mean", "of_x", "of_mean"), f"*{dtype}") | {"numbers": "*fp32"}
        signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
        constants = {n: value for n, value in constants.items() if n in signature}
        compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
        assert len(compiled.asm["cubin"]) > 1000

    def test_of_a_fake_map_on_a_gpu(self) -> None:
        with FakeTensorMode(), Operations() as seen:
            x = torch.empty(4, 3, 6, 5, device="cuda", dtype=torch.bfloat16)
            mean = region_mean(x, torch.empty(2, 4, 1, device="cuda"), (2, 2), "corner")
        assert (mean.shape, mean.dtype, mean.device.type) == ((4, 3, 1, 1), torch.bfloat16, "cuda")
        assert [name for name, _ in seen.calls if name.startswith("srp::")] == ["srp::region_mean"]

    @each(placement=PLACEMENTS, shape=[(4, 3, 6, 5), (2, 2, 3, 6, 5)])
    def test_step_is_two_operations(
        self, placement: RegionPlacement, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The operators on a CPU, as a pretended device computes them: the CPU's bits."""
        x = torch.randn(shape, requires_grad=True)
        numbers = torch.rand(2, 2, 1)
        expected = region_mean(x, numbers, (2, 3), placement)
        upstream = torch.randn_like(expected)
        (gradient,) = torch.autograd.grad(expected, x, upstream)
        with monkeypatch.context() as patch, Operations() as seen:
            patch.setattr(module, "_has_kernel", lambda x: True)
            mean = region_mean(x, numbers, (2, 3), placement)
            (actual,) = torch.autograd.grad(mean, x, upstream)
        assert torch.equal(mean, expected) and torch.equal(actual, gradient)
        computing = [name for name, _ in seen.calls if "view" not in name and "detach" not in name]
        assert computing == ["srp::region_mean", "srp::region_mean_backward"]

    def test_without_triton_the_traced_form(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "triton", None)
        monkeypatch.delitem(sys.modules, "srp_exp.srp.region_kernel", raising=False)
        monkeypatch.delattr("srp_exp.srp.region_kernel", raising=False)
        assert module._kernels.__wrapped__() is None
        monkeypatch.setattr(module, "_kernels", lambda: None)
        with FakeTensorMode(), Operations() as seen:
            x = torch.empty(4, 3, 6, 5, device="cuda")
            assert region_mean(x, torch.empty(2, 4, 1, device="cuda"), (2, 2), "corner").shape == (4, 3, 1, 1)
        assert not any(name.startswith("srp::") for name, _ in seen.calls)


@each(regions=(1, 2))
def test_meta_has_a_shape_only(regions: int) -> None:
    x = torch.empty(4, 3, 6, 5, device="meta", dtype=torch.bfloat16, requires_grad=True)
    mean = region_mean(x, torch.rand(2, 1, regions, device="meta"), (2, 2), "wrap")
    assert (mean.shape, mean.dtype, mean.is_meta) == ((4, 3, 1, 1), torch.bfloat16, True)
    mean.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@each(placement=PLACEMENTS, dtype=DTYPES, channels_last=[False, True])
def test_a_gpu_computes_what_a_cpu_does(channels_last: bool, dtype: torch.dtype, placement: RegionPlacement) -> None:
    for shape, sides, drawn, regions in (
        ((8, 64, 56, 56), (28, 28), 8, 1),
        ((6, 37, 14, 9), (7, 3), 3, 3),
        ((4, 3, 7, 7), (4, 4), 1, 1),
        ((1, 1, 1, 1), (1, 1), 1, 2),
    ):
        x = torch.randn(shape, dtype=torch.float64).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        numbers = torch.rand(2, drawn, regions)
        upstream = torch.randn(*shape[:2], 1, 1).to(dtype)
        results = []
        for device in ("cpu", "cuda", "cuda"):  # the second time from what was compiled at the first
            leaf = x.to(device).requires_grad_()
            mean = region_mean(leaf, numbers.to(device), sides, placement)
            (gradient,) = torch.autograd.grad(mean, leaf, upstream.to(device))
            assert gradient.stride() == leaf.stride()
            results.append((mean.cpu(), gradient.cpu()))
        for actual in results[1:]:
            for a, e in zip(actual, results[0], strict=True):
                torch.testing.assert_close(a, e, rtol=4 * torch.finfo(dtype).eps, atol=1e-6)
