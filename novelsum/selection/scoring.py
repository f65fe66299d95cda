"""What scores depend on."""

from dataclasses import dataclass

from novelsum.formula import Formula, Metric
from novelsum.formulas import EQUATIONS, Equation


@dataclass(frozen=True)
class Scoring:
    """The settings that scores depend on."""

    formula: Formula
    metric: Metric
    proximity_power: float
    density_power: float
    quality_power: float = 1.0
    cost_power: float = 0.0

    @property
    def equation(self) -> Equation:
        """The formula's object."""
        return EQUATIONS[self.formula]
