"""Values that the driver sends to all executors.

A broadcast of arrays fails where ``spark.io.encryption.enabled`` is on: PySpark's encrypting stream asks every piece
for its ``len``, which a pickled array's buffer has not ("object of type 'pickle.PickleBuffer' has no len()"); bytes
pass.
"""

import pickle
from dataclasses import dataclass
from typing import Generic, TypeVar

from pyspark import Broadcast, SparkContext

T = TypeVar("T")


@dataclass(frozen=True)
class Shared(Generic[T]):
    """A value in the driver's hands, and in every task's."""

    _content: Broadcast[bytes]

    @staticmethod
    def of(context: SparkContext, value: T) -> "Shared[T]":
        """Send a value; :meth:`destroy` it when no task needs it any more."""
        return Shared(context.broadcast(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)))

    @property
    def value(self) -> T:
        """The value, made anew at each call. It comes from this run's driver and from nowhere else."""
        value: T = pickle.loads(self._content.value)
        return value

    def destroy(self) -> None:
        """Remove it everywhere."""
        self._content.destroy()
