"""What the tests of compression share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from all_kinds import FAMILIES, SIZE, images, small_network

from edgewise.model import Model
from edgewise.network import Network
from edgewise.preprocess import Preprocess


@pytest.fixture(scope="session")
def network_of() -> Callable[[str], Network]:
    """The networks by name, made once; not to be changed."""
    made: dict[str, Network] = {}

    def of(name: str) -> Network:
        if name not in made:
            made[name] = small_network(name)
        return made[name]

    return of


@pytest.fixture(params=FAMILIES)
def network(request: pytest.FixtureRequest, network_of: Callable[[str], Network]) -> Network:
    """Each family's; not to be changed."""
    return network_of(request.param)


@pytest.fixture
def model(network: Network) -> Model:
    rule = Preprocess(SIZE, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Model(network, rule, tuple("abcdefg"))


@pytest.fixture(scope="session")
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two batches of inputs with labels."""
    return [(images(8, seed), torch.arange(8) % 7) for seed in (2, 3)]
