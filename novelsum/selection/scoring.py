"""What scores depend on."""

from dataclasses import dataclass

from novelsum.formula import Formula, Metric


@dataclass(frozen=True)
class Scoring:
    """The settings that scores depend on."""

    formula: Formula
    metric: Metric
    proximity_power: float
    density_power: float
    quality_power: float = 1.0
