"""List the classes whose objects the unpickler ignores; a pickle may hold such objects beside its tensors.

Ignored objects describe how a network was trained: options, paths, dates, optimizers. The names in this file
are compared as text. No class is imported and no function is called, whatever its name.
"""

import sys

# Module of the standard library -> names of classes and functions whose objects are ignored; None: all names.
_BUILTINS = """bool complex dict float int list object range slice str tuple type NoneType""".split()
_PATHS = ["Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"]
STANDARD: dict[str, list[str] | None] = {
    "__builtin__": [*_BUILTINS, "long", "unicode", "xrange"],
    "builtins": _BUILTINS,
    "argparse": ["Namespace"],
    "collections": ["deque"],
    "collections.abc": None,
    "datetime": ["date", "datetime", "time", "timedelta", "timezone"],
    "decimal": ["Decimal"],
    "enum": None,
    "fractions": ["Fraction"],
    "operator": ["or_"],
    "_operator": ["or_"],
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "re": ["_compile"],
    "types": ["GenericAlias", "NoneType", "SimpleNamespace"],
    "typing": None,
    "uuid": ["SafeUUID", "UUID"],
    "zoneinfo": ["ZoneInfo"],
}
# Data types of numpy that are ignored if a pickle names the type itself (``numpy.float32``).
# Numeric arrays and scalars are read, because they name their data type by a code (``f4``).
NUMPY = """bool bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64
    complex128 str_ bytes_ object_ datetime64 timedelta64""".split()
# Modules of torch and numpy whose classes and functions are ignored, with the modules inside them.
PARTS = (
    "numpy.random",
    "torch.amp",
    "torch.cuda.amp",
    "torch.nn",
    "torch.optim",
    "torch.torch_version",
    "torch.utils.data",
)
# In these packages, only the names listed above are ignored.
# The modules __builtin__, commands and copy_reg exist only in Python 2.
CLOSED = {*sys.stdlib_module_names, "__builtin__", "commands", "copy_reg", "torch", "numpy"}


def is_ignored(module: str, name: str) -> bool:
    """Return whether placeholders replace the objects of a class or the results of a function.

    Outside the standard library, torch and numpy, every class and function is ignored: it may be the user's.
    """
    package = module.partition(".")[0]
    if package not in CLOSED:
        return True
    if module in STANDARD:
        names = STANDARD[module]
        return names is None or name in names
    if module == "numpy":
        return name in NUMPY
    if (module, name) == ("torch.serialization", "_get_layout"):
        return True
    return any(module == part or module.startswith(f"{part}.") for part in PARTS)
