"""How often each shipped study comes to which verdict, by simulation: the table of docs/statistics.md.

    python scripts/operating_characteristics.py [--studies 10000] [study ...]

A run's metric is normal; sd is that of a paired difference over the smallest effect e, as measured on photographs
from 0.8 to 1.5. It goes through the code of a report, with its looks. The columns at 0, e and 2e have sd 1.25, and
preconditions that hold by 2e. wrong: the most over sd 0.8, 1.25 and 1.5, and over
  - the claim false by the least (`better`: no difference): supported or contradicted;
  - the claim true by e: no relevant difference or contradicted;
  - a precondition false by the least, the claim true by 2e: supported or contradicted.
"""

import argparse
from functools import cache
from typing import Any

from srp_exp.commands.report.command import plan_study, shipped_studies
from srp_exp.commands.report.power import NEEDED, Chances, simulate
from srp_exp.config.schemas.study import Expectation, Role
from srp_exp.studies.pairs import Runs, Statement, plain_study, statements
from srp_exp.studies.verdict import Outcome

SPREADS = (0.8, 1.25, 1.5)
FALSE_BY_THE_LEAST = {Expectation.better: 0.0, Expectation.not_worse: -1.0, Expectation.equal: 1.0}
SUPPORTED, CONTRADICTED, NONE = Outcome.supported, Outcome.contradicted, Outcome.no_relevant_difference


@cache
def planned_study(name: str) -> tuple[dict[str, Any], Runs]:
    config, grid = plan_study([f"study={name}"])
    return plain_study(config.study), grid.entries


def simulated(name: str, claim: float | None, needs: float, sd: float, count: int) -> Chances:
    """claim, needs: gains of the claim's statements, and of those that it needs, in e; None: false by the least."""
    study, planned = planned_study(name)

    def truth(statement: Statement) -> float:
        gain = claim if statement.role == Role.claim else needs
        if gain is None:
            return FALSE_BY_THE_LEAST[statement.expect]
        return 0.0 if statement.expect == Expectation.equal else gain

    return simulate({**study, "spread": sd}, planned, truth, count=count)


def part(chances: Chances, *outcomes: Outcome) -> float:
    return sum(chances.verdicts[outcome] for outcome in outcomes)


def wrong(name: str, count: int) -> float:
    """The largest part of wrong verdicts."""
    needs = any(s.role != Role.claim for s in statements(*planned_study(name)))
    found = []
    for sd in SPREADS:
        found.append(part(simulated(name, None, NEEDED, sd, count), SUPPORTED, CONTRADICTED))
        found.append(part(simulated(name, 1.0, NEEDED, sd, count), NONE, CONTRADICTED))
        if needs:
            found.append(part(simulated(name, 2.0, 0.0, sd, count), SUPPORTED, CONTRADICTED))
    return max(found)


def line(name: str, count: int) -> str:
    at = [simulated(name, gain, NEEDED, 1.25, count) for gain in (0.0, 1.0, 2.0)]
    shown = [part(at[0], NONE), at[0].trained, part(at[1], SUPPORTED), part(at[2], SUPPORTED), at[2].trained]
    return f"| `{name}` | {wrong(name, count):.1%} | {' | '.join(f'{value:.0%}' for value in shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000, help="simulated studies of each kind")
    parser.add_argument("names", nargs="*", metavar="study", help="those of conf/study by default")
    options = parser.parse_args()
    print("| study | wrong | 0: no relevant difference | 0: runs | e: supported | 2e: supported | 2e: runs |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in options.names or shipped_studies():
        print(line(name, options.studies), flush=True)


if __name__ == "__main__":
    main()
