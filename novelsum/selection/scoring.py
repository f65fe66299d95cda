"""What scores depend on."""

from dataclasses import dataclass, fields

from novelsum.formula import Formula, Metric
from novelsum.formulas import EQUATIONS, Equation
from novelsum.settings import Settings


@dataclass(frozen=True)
class Scoring:
    """The settings that scores depend on."""

    formula: Formula
    metric: Metric
    proximity_power: float
    density_power: float
    quality_power: float = 1.0
    cost_power: float = 0.0

    @staticmethod
    def of(settings: Settings) -> "Scoring":
        """Those among all settings of a run."""
        return Scoring(**{field.name: getattr(settings, field.name) for field in fields(Scoring)})

    @property
    def equation(self) -> Equation:
        """The formula's object."""
        return EQUATIONS[self.formula]
