"""Run the fuzzer: python -m tests.fuzz --n 5000 [--kind checkpoints] [--seed 0] [--case 17].

Prints one table per kind (rows: mutations, columns: outcomes) and every fault; exits with 1 after a fault.
"""

import argparse
import sys
from collections import Counter, defaultdict

from tests.fuzz.registry import all_kinds
from tests.fuzz.runner import Result, run


def main() -> int:
    """Run the cases that the options choose; return 1 if a case is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=1000, help="number of cases of all kinds together")
    parser.add_argument("--kind", choices=sorted(all_kinds()), action="append", help="default: all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this case alone")
    options = parser.parse_args()
    kinds = options.kind or sorted(all_kinds())
    faults = 0
    for kind in kinds:
        cases = range(options.n // len(kinds)) if options.case is None else [options.case]
        results = list(run(kind, cases, options.seed))
        print(table(kind, results))
        for result in results:
            if result.fault:
                faults += 1
                repeat = f"--kind {kind} --seed {options.seed} --case {result.case}"
                print(f"FAULT {repeat} [{result.what}] {result.fault}")
    return 1 if faults else 0


def table(kind: str, results: list[Result]) -> str:
    """Return a Markdown table: number of cases per mutation and outcome, and the largest time and memory."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for result in results:
        counts[result.what.partition(":")[0]]["fault" if result.fault else result.outcome] += 1
    outcomes = sorted({outcome for row in counts.values() for outcome in row})
    lines = [f"| {kind} | cases | {' | '.join(outcomes)} |", "|---|" + "---:|" * (len(outcomes) + 1)]
    for what, row in sorted(counts.items()):
        numbers = [row.total(), *(row[outcome] for outcome in outcomes)]
        lines.append(f"| {what} | {' | '.join(map(str, numbers))} |")
    slowest, largest = max(r.seconds for r in results), max(r.mib for r in results)
    return "\n".join([*lines, f"{len(results)} cases, at most {slowest:.1f} s and {largest} MiB", ""])


if __name__ == "__main__":
    sys.exit(main())
