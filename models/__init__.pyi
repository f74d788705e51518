from .registry import build_from_row as build_from_row
from .registry import build_model as build_model
from .registry import list_models as list_models
from .registry import register as register
from .stages import InputSpec as InputSpec
from .stages import Stage as Stage
from .stages import Tap as Tap
from .stages import VideoNetwork as VideoNetwork
