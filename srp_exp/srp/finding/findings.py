"""What a search for channel attention finds."""

from dataclasses import dataclass, field

from srp_exp.srp.calls import Call, Path, Place


@dataclass(frozen=True)
class Gate:
    """Where a pooled value multiplies its map: in a call of the module `home`, that with the factor at `path`.

    `place` is that of the pooling, counted in `home`. `divides`: the map is divided by the factor.
    """

    home: str
    call: Call
    path: Path
    place: Place
    divides: bool = False


@dataclass(frozen=True)
class Pooling:
    """A global pooling that gates its own map, at `place` in the forward of `module`; its class is `kind`.

    `map_size` is (H, W) in the example run. Where `gates` is False, something else than a product brings the pooled
    value back to the map: it is attention if the user says so. `gate` is None where no torch function in Python
    multiplies.
    """

    module: str
    kind: str
    place: Place
    map_size: tuple[int, int]
    gates: bool = True
    gate: Gate | None = None


@dataclass(frozen=True)
class LeftOut:
    """A module that multiplies a map by something smaller, as attention does, but was not converted, and the reason."""

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name or '(the model)'} ({self.kind}): {self.reason}"


@dataclass
class Findings:
    """What a search saw: `poolings` in the order in which they run, and what looked like attention but is none."""

    poolings: list[Pooling] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def summary(left_out: list[LeftOut]) -> list[str]:
    """A line for each class and reason."""
    alike: dict[tuple[str, str], list[LeftOut]] = {}
    for one in left_out:
        alike.setdefault((one.kind, one.reason), []).append(one)
    return [f"{kind} ({len(group)} such as {group[0].name!r}): {reason}" for (kind, reason), group in alike.items()]
