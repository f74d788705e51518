"""Import optional packages, which only some file formats need."""

from types import ModuleType

from static_dynamic.errors import UserError


def load_h5py() -> ModuleType:
    """Import h5py; raise UserError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "HDF5 files need the package h5py: pip install h5py, or give task.format=npz or parquet"
        ) from error
    return h5py
