"""Seeds are pure functions of their names, the same in every process, and no two lists of names share one."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from srp_exp.seeding import derive, derive_many, generator


def test_the_same_names_give_the_same_seed_in_another_process():
    command = "from srp_exp.seeding import derive; print(derive(3, 'order', 7, 11))"
    # Another hash seed: Python's own hash() of the purpose would differ.
    output = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(output.stdout) == derive(3, "order", 7, 11)


def test_the_seed_is_a_fixed_number():
    # Made once with this function: a change would make finished runs impossible to repeat.
    assert derive(0, "order", 1) == 6_579_100_346_364_745_659


def test_neighbouring_names_give_different_seeds():
    seeds = (0, 1, 2**32, 2**32 + 1)
    indices = [(), (0,), (1,), (2**32,), (0, 0), (0, 1), (1, 0)]
    names = list(itertools.product(seeds, ("order", "orde", "augment", ""), indices))
    derived = [derive(seed, purpose, *index) for seed, purpose, index in names]
    assert len(set(derived)) == len(names)
    assert all(0 <= seed < 2**63 for seed in derived)


def test_many_seeds_begin_with_the_one_and_do_not_depend_on_their_number():
    many = derive_many(1000, 0, "augment", 1).tolist()
    assert many[0] == derive(0, "augment", 1)
    assert many[:10] == derive_many(10, 0, "augment", 1).tolist()
    assert len(set(many)) == 1000 and all(0 <= seed < 2**63 for seed in many)
    assert not set(many) & set(derive_many(1000, 0, "augment", 2).tolist())


def test_a_generator_repeats_its_numbers_and_leaves_the_global_one_alone():
    before = torch.random.get_rng_state()
    first = torch.rand(5, generator=generator(0, "order", 2))
    assert torch.equal(first, torch.rand(5, generator=generator(0, "order", 2)))
    assert not torch.equal(first, torch.rand(5, generator=generator(0, "order", 3)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_number_outside_64_bits_is_refused():
    for seed, index in ((-1, 0), (2**64, 0), (0, -1)):
        with pytest.raises(ValueError, match="'order'"):
            derive(seed, "order", index)
