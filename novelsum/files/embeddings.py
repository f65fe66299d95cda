"""A column of embeddings as NumPy arrays, whichever of the accepted Parquet types it has."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EXPECTED = "a list of float or double, or a Spark ML vector"
_ML_VECTOR = ("type", "size", "indices", "values")


@dataclass(frozen=True)
class Vectors:
    """A column of embeddings, possibly with nulls and unequal lengths.

    ``values`` holds the numbers of all rows on end, ``lengths`` (n,) how many each row has (-1: a null row),
    ``starts`` (n,) where they begin.
    """

    values: NDArray[np.floating[Any]]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(column: pa.Array, dtype: type[np.floating[Any]]) -> "Vectors":
        """From a list of any kind, or the struct of a Spark ML vector."""
        if pa.types.is_struct(column.type):
            column = _densified(column)
        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        # A null number becomes NaN here, and is refused as such.
        numbers = column.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False)
        starts = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))[:-1]]).astype(np.int64)
        return Vectors(numbers, starts, lengths)

    def of_length(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
        """Rows that have that many numbers: their positions (m,) and the numbers (m, length).

        Negative zeros are made zeros, so that equal vectors have equal bytes.
        """
        positions = np.flatnonzero(self.lengths == length)
        if len(positions) == len(self.lengths):
            matrix = self.values.reshape(len(positions), length)
        else:
            matrix = self.values[self.starts[positions, None] + np.arange(length)]
        return positions, matrix + matrix.dtype.type(0)


def _densified(column: pa.StructArray) -> pa.Array:
    """Spark ML vectors (struct of type, size, indices, values; type 1 is dense) as lists of double."""
    kinds, sizes, indices, values = (pc.struct_field(column, name) for name in _ML_VECTOR)
    dense = pc.fill_null(pc.equal(kinds, 1), True)
    if pc.all(dense).as_py() is not False:
        return values
    rows: list[list[float] | None] = []
    for kind, size, places, numbers in zip(
        kinds.to_pylist(), sizes.to_pylist(), indices.to_pylist(), values.to_pylist(), strict=True
    ):
        rows.append(_densified_row(size, places, numbers) if kind == 0 else numbers)
    return pa.array(rows, pa.list_(pa.float64()))


def _densified_row(size: int | None, places: list[int] | None, numbers: list[float] | None) -> list[float] | None:
    """A sparse vector written out; None where its parts do not fit together."""
    if size is None or places is None or numbers is None or len(places) != len(numbers):
        return None
    if any(place is None or not 0 <= place < size for place in places):
        return None
    row: list[float] = [0.0] * size
    for place, number in zip(places, numbers, strict=True):
        row[place] = number
    return row


def _is_list(kind: pa.DataType) -> bool:
    is_view = str(kind).startswith(("list_view<", "large_list_view<"))  # older pyarrow has no function for it
    return bool(is_view or pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_ml_vector(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == set(_ML_VECTOR)


def is_embedding(kind: pa.DataType) -> bool:
    """Whether a column of that type can hold embeddings."""
    return _is_ml_vector(kind) or (_is_list(kind) and kind.value_type in (pa.float32(), pa.float64()))


def has_doubles(kind: pa.DataType) -> bool:
    """Whether the numbers of a column of that type, embeddings or not, are doubles."""
    return _is_ml_vector(kind) or bool((kind.value_type if _is_list(kind) else kind) == pa.float64())


def digests(vectors: NDArray[np.floating[Any]]) -> list[bytes]:
    """A digest of each vector (n, D), equal for equal ones."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in vectors]
