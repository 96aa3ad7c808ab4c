"""Learning curves of finished cells, read once and without a data frame each: a large report draws thousands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from crossfold.platform.workspace.cell_record import CellRecord

Floats = npt.NDArray[np.float64]

PREFIX = "ccc_"


@dataclass(frozen=True)
class Curves:
    """The curves of some cells, each file read when it is first asked for."""

    records: Mapping[str, CellRecord]
    _read: dict[str, dict[str, Floats]] = field(default_factory=dict)

    def of(self, cell_id: str, target: str) -> Floats:
        """CCC on the selection split, one value per epoch from the first on; NaN where there was none."""
        if cell_id not in self._read:
            # A thirtieth of the time of `CellRecord.curve`, which a cell is asked for alone.
            file = pa.BufferReader((self.records[cell_id].path / "curve.parquet").read_bytes())
            opened = pq.ParquetFile(file)
            names = [name for name in opened.metadata.schema.names if name.startswith(PREFIX)]
            # Without the columns that no chart shows, and the index of a data frame, in half of the time.
            table = opened.read(names, use_threads=False, use_pandas_metadata=False)
            self._read[cell_id] = {
                name.removeprefix(PREFIX): table[name].to_numpy().astype(np.float64) for name in names
            }
        return self._read[cell_id][target]

    def stacked(self, cell_ids: list[str], target: str) -> Floats:
        """The curves of several cells below each other: [cells, longest]; NaN after the end of a shorter one."""
        curves = [self.of(cell_id, target) for cell_id in cell_ids]
        return np.array(list(zip_longest(*curves, fillvalue=np.nan)), np.float64).T
