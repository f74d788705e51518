"""Count false alarms of task=ablate: small p-values of labels that have nothing to do with the effect.

    python -m bench.ablation [--plants 2000]

Each plant is a random classifier of 10 classes that reads 60 or 400 units of very different variance, on 12
clips in two styles and two orders. A random set of units is labelled. In some designs loud units are labelled
up to twice as often as quiet ones. The effect is measured as in ``ablation.csv``, for the labelled set and 99
random sets.
"""

import argparse

import numpy as np
import pandas as pd

from static_dynamic.analysis.ablation.effects import p_value
from static_dynamic.analysis.ablation.measures import ClassMeasures, ClipViews
from static_dynamic.analysis.ablation.unit_sets import matched_sets

MEASURES = ("divergence", "top1_kept", "order_bits", "style_bits")
# Name of a design -> number of units, number of labelled units, whether units with large variance (loud
# units) are labelled more often.
DESIGNS = {
    "60 units, 8 labelled": (60, 8, False),
    "60 units, 8 labelled, loud ones more often": (60, 8, True),
    "400 units, 20 labelled, loud ones more often": (400, 20, True),
}
CLIPS, CLASSES, RANDOM = 12, 10, 99


def p_values(units: int, labelled: int, loud: bool, seed: int) -> dict[str, float]:
    """Return the p-value of each measure in one simulated network."""
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.standard_normal(units) / 2)
    weights = rng.standard_normal((units, CLASSES)) * 2 / np.sqrt(units)
    clip = rng.standard_normal((CLIPS, 1, 1, units))
    style = rng.standard_normal((CLIPS, 2, 1, units)) * rng.random(units)
    order = rng.standard_normal((CLIPS, 1, 2, units)) * rng.random(units)
    activations = ((clip + style + order) * spread).reshape(CLIPS, 4, units)
    variance = activations.reshape(-1, units).var(axis=0)
    rank = loud * variance.argsort().argsort() + units
    chosen = rng.choice(units, labelled, replace=False, p=rank / rank.sum())
    views = ClipViews.of(pd.DataFrame({"style": [1, 1, 2, 2], "altered": [0, 1, 0, 1], "position": 0}))
    measures = ClassMeasures(None, labelled=False)  # type: ignore[arg-type]
    numbers = []
    for one in (chosen, *matched_sets(chosen, variance, RANDOM, rng)):
        removed = activations.copy()
        removed[..., one] = activations[..., one].mean(axis=(0, 1))
        found = [
            measures.measure(whole @ weights, part @ weights, views)
            for whole, part in zip(activations, removed, strict=True)
        ]
        numbers.append(np.mean(found, axis=0))
    table = pd.DataFrame(numbers, columns=list(measures.names))
    return {name: p_value(table[name].to_numpy()) for name in MEASURES}


def main() -> None:
    """Print the fraction of p-values up to 0.05, by design and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plants", type=int, default=2000, help="simulated networks per design")
    plants = parser.parse_args().plants
    rows = []
    for name, design in DESIGNS.items():
        found = pd.DataFrame([p_values(*design, seed) for seed in range(plants)])
        rows.append({"design": name, **(found <= 0.05).mean().round(3)})
    print(f"fraction of p <= 0.05 in {plants} networks without any effect of the label\n")
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
