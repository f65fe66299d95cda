"""NovelSum and NovelSelect at scale on Spark. Start with :mod:`novelsum.formula`, which states the mathematics."""

__version__ = "0.1.0"
