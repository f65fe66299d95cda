"""NovelSelect in rounds of draft and verify, exact on any layout of the pool.

``scoring``, ``quotas``, ``candidates``, ``sketch``, ``contenders`` and ``check`` are NumPy alone; ``rounds`` brings
them to Spark.
"""
