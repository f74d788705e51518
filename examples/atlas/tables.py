"""Tables of docs/atlas.md, as rows of text cells."""

from collections.abc import Callable
from pathlib import Path

from examples.atlas.contrasts import Number, lean_of_parts, lean_of_scores, motion_share, parts
from examples.atlas.networks import (
    BY_NAME,
    DATA,
    NETWORKS,
    SCENES,
    UNTRAINED,
    YARDSTICK,
    Network,
    Run,
)

Row = dict[str, str]
TRAINED_ON = {"kinetics": "Kinetics-400", "cuts": "cuts", "rlap": "RLAP", "pure": "PURE", UNTRAINED: "-"}
VERDICT = {1: "yes", -1: "no", 0: "uncertain"}


class Results:
    """The finished runs of the atlas in `save_dir`; a run is named by network, weights and data set."""

    def __init__(self, save_dir: Path):
        self.save_dir = save_dir

    def folder(self, network: str, weights: str, data: str) -> Path:
        """Return the folder of a run."""
        return Run(network, weights, data).folder(self.save_dir)

    def part(self, name: str, network: str, weights: str, data: str, stage: str) -> Number:
        """Return one part of the variance of a stage."""
        return parts(self.folder(network, weights, data), stage)[name]

    def leans(
        self, network: str, weights: str, data: str, stage: str
    ) -> tuple[Number, Number | None, Number]:
        """Return three measures of how far a stage leans to motion, all of them 0 if it is balanced.

        The measures are motion minus appearance, motion / (motion + appearance) minus 1/2 (None if the sum is
        not clearly above 0), and the paper's dynamic share minus the static share.
        """
        folder = self.folder(network, weights, data)
        return lean_of_parts(folder, stage), motion_share(folder, stage), lean_of_scores(folder, stage)


def main_weights(network: Network) -> str:
    """Return the first set of trained weights of a network, which the figures and long tables show."""
    return next(iter(network.trained))


def networks(results: Results) -> list[Row]:
    """Describe the networks."""
    rows = []
    for network in NETWORKS:
        sizes = {str(size).strip("()").replace(", ", " x ") for size in network.sizes.values()}
        sides = " or ".join(
            size if "x" in size else f"{size} x {size}" for size in sorted(sizes, reverse=True)
        )
        rows.append(
            {
                "network": network.label,
                "family": network.family,
                "frames": str(network.frames),
                "pixels": sides,
                "trained on": ", ".join(TRAINED_ON[name] for name in network.trained),
                "last stage": f"`{network.last}`",
            }
        )
    return rows


def stages(results: Results, data: str) -> list[Row]:
    """Return the parts of every stage, trained and untrained, for the first set of weights."""
    rows = []
    for network in NETWORKS:
        for stage in network.stages:
            row = {"network": network.label, "stage": f"`{stage}`"}
            for part in ("motion", "appearance"):
                trained = results.part(part, network.name, main_weights(network), data, stage)
                untrained = results.part(part, network.name, UNTRAINED, data, stage)
                row[f"{part}, trained"] = trained.text()
                row[f"{part}, untrained"] = untrained.text()
                row[f"{part}, difference"] = (trained - untrained).text()
            rows.append(row)
    return rows


def every_set_of_weights(results: Results) -> list[tuple[Network, str, str]]:
    """Return (network, weights, data set) of every run of a network."""
    return [(n, w, data) for data in DATA for n in NETWORKS for w in (*n.trained, UNTRAINED)]


def training(results: Results) -> list[Row]:
    """Return what training changes at the last stage, by family of networks: trained minus untrained."""
    rows = []
    for network, weights, data in every_set_of_weights(results):
        if weights == UNTRAINED:
            continue
        row = {"data": data, "family": network.family, "network": network.label}
        row["trained on"] = TRAINED_ON[weights]
        for name in ("content", "motion", "appearance", "residual"):
            sides = [results.part(name, network.name, w, data, network.last) for w in (weights, UNTRAINED)]
            row[name] = (sides[0] - sides[1]).text(digits=1)
        shares = [results.leans(network.name, w, data, network.last)[2] for w in (weights, UNTRAINED)]
        row["dynamic - static share"] = (shares[0] - shares[1]).text(digits=1)
        rows.append(row)
    return rows


def rises(results: Results) -> list[Row]:
    """Return the motion part of the last stage minus that of the first stage that sees motion."""
    rows = []
    for network, weights, data in every_set_of_weights(results):
        first = next(stage for stage in network.stages if not stage.startswith("appearance"))
        ends = [results.part("motion", network.name, weights, data, s) for s in (first, network.last)]
        change = ends[1] - ends[0]
        rows.append(
            {
                "data": data,
                "network": network.label,
                "trained on": TRAINED_ON[weights],
                "first": f"`{first}`",
                "motion, first": ends[0].text(digits=1),
                "last": f"`{network.last}`",
                "motion, last": ends[1].text(digits=1),
                "change": change.text(digits=1),
                "verdict": {1: "rises", -1: "falls", 0: "uncertain"}[change.sign],
            }
        )
    return rows


def balance(results: Results) -> list[Row]:
    """Return how far the last stage of each network leans to motion, or to appearance."""
    rows = []
    for network, weights, data in every_set_of_weights(results):
        of_parts, share, of_scores = results.leans(network.name, weights, data, network.last)
        rows.append(
            {
                "data": data,
                "network": network.label,
                "trained on": TRAINED_ON[weights],
                "motion - appearance": of_parts.text(),
                "leans to": {1: "motion", -1: "appearance", 0: "uncertain"}[of_parts.sign],
                "motion / (motion + appearance)": shifted(share),
                "residual": results.part("residual", network.name, weights, data, network.last).text(),
                "dynamic - static share": of_scores.text(digits=1),
                "leans to (paper)": {1: "dynamic", -1: "static", 0: "uncertain"}[of_scores.sign],
            }
        )
    return rows


def shifted(share: Number | None) -> str:
    """Return a motion share in percent; `share` is the share minus 1/2, or None if it is not defined."""
    return "-" if share is None else Number(share.value + 0.5, share.deviation).text()


def connections(results: Results) -> list[Row]:
    """Return what each connection of TS-CAN changes in the motion stream: behind it minus before it."""
    rows = []
    for data in DATA:
        for weights in (*BY_NAME["tscan"].trained, UNTRAINED):
            for k in (1, 2):
                before, behind = f"motion{k}", f"fused{k}"
                found = [
                    [results.part(part, "tscan", weights, data, stage) for stage in (before, behind)]
                    for part in ("motion", "appearance", "content")
                ]
                leans = [results.leans("tscan", weights, data, stage) for stage in (before, behind)]
                shares = leans[1][2] - leans[0][2]
                rows.append(
                    {
                        "data": data,
                        "trained on": TRAINED_ON[weights],
                        "connection": str(k),
                        "motion": (found[0][1] - found[0][0]).text(digits=1),
                        "appearance": (found[1][1] - found[1][0]).text(digits=1),
                        "content": (found[2][1] - found[2][0]).text(digits=1),
                        "dynamic - static share": shares.text(digits=1),
                    }
                )
    return rows


def against(results: Results) -> list[Row]:
    """Compare TS-CAN's last stage with those of the other networks: which one is nearer to balance?"""
    rows = []
    for data in DATA:
        for network in NETWORKS:
            for weights in network.trained if network.name != "tscan" else ():
                own = weights if weights in BY_NAME["tscan"].trained else main_weights(BY_NAME["tscan"])
                here = results.leans("tscan", own, data, "fused2")
                there = results.leans(network.name, weights, data, network.last)
                row = {"data": data, "TS-CAN": TRAINED_ON[own]}
                row["compared with"] = f"{network.label} ({TRAINED_ON[weights]})"
                names = ("parts", "motion share", "paper's shares")
                for name, a, b in zip(names, here, there, strict=True):
                    row[name] = "-" if a is None or b is None else nearer(abs(b) - abs(a))
                rows.append(row)
    return rows


def nearer(distance: Number) -> str:
    """Return by how much TS-CAN is nearer to balance, with a verdict."""
    return f"{distance.text(digits=1)} {VERDICT[distance.sign]}"


def scenes(results: Results) -> list[Row]:
    """Return the motion part of the last stage on each family of scenes of the calibrated data set."""

    def cells(measure: Callable[[str], Number]) -> Row:
        return {scene: measure(scene).text(digits=1) for scene in SCENES}

    def motion(network: str, weights: str, stage: str, scene: str) -> Number:
        return parts(results.folder(network, weights, "calibrated"), stage, f"{scene}_")["motion"]

    rows = [
        {"network": "yardstick `velocity`", "trained on": "-"}
        | cells(lambda scene: motion(YARDSTICK, YARDSTICK, "velocity", scene))
    ]
    for network in NETWORKS:
        for weights in (main_weights(network), UNTRAINED):
            row = {"network": network.label, "trained on": TRAINED_ON[weights]}
            rows.append(
                row | cells(lambda scene, n=network, w=weights: motion(n.name, w, n.last, scene))  # type: ignore[misc]
            )
    return rows


def yardsticks(results: Results) -> list[Row]:
    """Return the parts of the yardsticks: how much motion and appearance each data set offers."""
    rows = []
    for data in DATA:
        for stage in ("velocity", "motion_energy", "layout", "colour"):
            found = parts(results.folder(YARDSTICK, YARDSTICK, data), stage)
            shown = {name: found[name].text() for name in ("content", "motion", "appearance", "residual")}
            rows.append({"data": data, "yardstick": f"`{stage}`", **shown})
    return rows


# Name of a table, as in the comments of docs/atlas.md -> function that returns its rows.
TABLES: dict[str, Callable[[Results], list[Row]]] = {
    "networks": networks,
    "yardsticks": yardsticks,
    "stages_embedded": lambda results: stages(results, "embedded"),
    "stages_calibrated": lambda results: stages(results, "calibrated"),
    "training": training,
    "rises": rises,
    "balance": balance,
    "connections": connections,
    "against": against,
    "scenes": scenes,
}


def markdown(rows: list[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
