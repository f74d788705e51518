from .checkpoints import load_generator as load_generator
from .networks import build_generator as build_generator
