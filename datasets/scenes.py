"""Render scenes whose motion, layout and look are known: the videos of ``dataset=calibrated``.

A scene is a field of brightness (T, H, W) on a torus: what leaves the frame on one side enters on the other
side. Textures are noise in a narrow band of spatial frequencies. They move by phase shifts of their Fourier
coefficients, so that displacements by fractions of a pixel are exact.

Letters in shapes: T frames, H and W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Motion patterns: relative speed as a function of the time in the clip, which runs from 0 to 1.
PATTERNS: dict[str, Callable[[NDArray], NDArray]] = {
    "steady": lambda time: np.ones_like(time),
    "turning": lambda time: np.where(time < 0.5, 1.0, -1.0),
    "speeding": lambda time: 0.25 + 1.5 * time,
    "slowing": lambda time: 1.75 - 1.5 * time,
}
# Each shape is a function of the distances x and y to the shape's centre, in radii. The function is below
# 1 inside the shape.
SHAPES: dict[str, Callable[[NDArray, NDArray], NDArray]] = {
    "disc": lambda x, y: np.hypot(x, y),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) / 0.89,
    "bar": lambda x, y: np.maximum(abs(x) / 0.45, abs(y) / 1.6),
    "beam": lambda x, y: np.maximum(abs(x) / 1.6, abs(y) / 0.45),
}
# Radius of the disc, as a fraction of the frame's side; all shapes have about the same area.
RADIUS = 0.22
# Family of scenes with a shape -> whether the shape moves.
SHAPED = {"layout": False, "sprites": True, "figures": False}
# Number of dots in a random-dot kinematogram.
DOTS = 80
# Number of frames after which a dot jumps to a random place.
LIFETIME = 8
# Number of brightness levels.
LEVELS = 64
# Contrast of the background relative to the contrast of the shape.
DIM = 0.25


@dataclass(frozen=True)
class Scene:
    """What a video shows in every style; lengths are fractions of the frame's side."""

    family: str
    # Direction of the motion in degrees: 0 is right, 90 is down.
    direction: float
    # Distance per frame when the relative speed (see `PATTERNS`) is 1.
    speed: float
    pattern: str  # key of `PATTERNS`
    # Fraction of the dots that move in `direction`; all other dots move in random directions.
    coherence: float
    shape: str  # key of `SHAPES`
    # Centre of the shape in the first frame.
    x: float
    y: float


@dataclass(frozen=True)
class Look:
    """Texture and colours of a video in one style."""

    # Wavelength of the texture, as a fraction of the frame's side.
    wavelength: float
    # Standard deviation of the brightness, which ranges from 0 to 1.
    contrast: float
    # RGB colour (0 to 255) at brightness 0.
    dark: tuple[int, int, int]
    # RGB colour (0 to 255) at brightness 1.
    light: tuple[int, int, int]


def travelled(scene: Scene, frames: int) -> NDArray[np.float64]:
    """Return the signed distance (T,) travelled since the first frame, along the direction of the motion."""
    # times half-way between successive frames
    time = (np.arange(1, frames) - 0.5) / max(1, frames - 1)
    return scene.speed * np.concatenate([[0.0], np.cumsum(PATTERNS[scene.pattern](time))])


def heading(angle: NDArray | float) -> NDArray[np.float64]:
    """Return the horizontal and vertical components (..., 2) of unit vectors at `angle` degrees."""
    radians = np.deg2rad(angle)
    return np.stack([np.cos(radians), np.sin(radians)], axis=-1)


def path(scene: Scene, frames: int) -> NDArray[np.float64]:
    """Return the horizontal and vertical displacement (T, 2) of a scene's motion since the first frame."""
    return travelled(scene, frames)[:, None] * heading(scene.direction)


def offsets(centres: NDArray, size: int) -> NDArray[np.float64]:
    """Return the signed distance of every pixel to every centre on a torus, in units of the frame's side.

    `centres` has shape (...,) and the result has shape (..., size), with values from -0.5 to 0.5.
    """
    return ((np.arange(size) + 0.5) / size - centres[..., None] + 0.5) % 1 - 0.5


def texture(rng: np.random.Generator, size: int, wavelength: float, steps: NDArray) -> NDArray[np.float64]:
    """Render a noise texture (T, H, W), displaced by `steps` (T, 2); mean 0, standard deviation 1."""
    fy, fx = np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)
    frequency = np.hypot(fx, fy)
    octaves = np.log2(np.maximum(frequency, 0.5) * wavelength)
    envelope = np.exp(-(octaves**2) / (2 * 0.8**2)) * (frequency > 0)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * envelope
    spectrum /= np.fft.irfft2(spectrum, (size, size)).std()
    phase = np.exp(-2j * np.pi * (fx * steps[:, 0, None, None] + fy * steps[:, 1, None, None]))
    return np.fft.irfft2(spectrum * phase, (size, size))


def mask(scene: Scene, size: int, steps: NDArray, edge: float = 0.0) -> NDArray[np.float64]:
    """Render a mask (T, H, W) of the scene's shape, displaced by `steps` (T, 2): 1 inside, 0 outside.

    `edge` is a quarter of the width of the transition, as a fraction of the frame's side; at least half a
    pixel.
    """
    x, y = offsets(scene.x + steps[:, 0], size), offsets(scene.y + steps[:, 1], size)
    distance = SHAPES[scene.shape](x[:, None, :] / RADIUS, y[:, :, None] / RADIUS)
    return 1 / (1 + np.exp((distance - 1) * RADIUS / max(edge, 0.5 / size)))


def shape_mask(scene: Scene, size: int, frames: int) -> NDArray[np.uint8]:
    """Return the mask (T, H, W) of a scene's shape: 1 inside; 0 everywhere if its family has no shape."""
    if scene.family not in SHAPED:
        return np.zeros((frames, size, size), np.uint8)
    steps = path(scene, frames) if SHAPED[scene.family] else np.zeros((frames, 2))
    return (mask(scene, size, steps) > 0.5).astype(np.uint8)


def flow(scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int) -> NDArray:
    """Render one moving texture that fills the frame; no single frame shows the motion."""
    return texture(rng, size, look.wavelength, path(scene, frames))


def dots(scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int) -> NDArray:
    """Render a random-dot kinematogram: coherent dots move together, the rest in random directions."""
    coherent = np.arange(DOTS) < round(scene.coherence * DOTS)
    headings = heading(np.where(coherent, scene.direction, rng.uniform(0, 360, DOTS)))
    steps = np.diff(travelled(scene, frames), prepend=0)
    place, age = rng.uniform(0, 1, (DOTS, 2)), rng.integers(0, LIFETIME, DOTS)
    field = np.empty((frames, size, size))
    for t, step in enumerate(steps):
        place, age = place + step * headings, age + 1
        old = age > LIFETIME
        place[old], age[old] = rng.uniform(0, 1, (int(old.sum()), 2)), 1
        x, y = (np.exp(-((offsets(place[:, axis], size) / look.wavelength) ** 2) * 12) for axis in (0, 1))
        field[t] = y.T @ x
    return (field - field.mean()) / field.std()


def layout(scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int) -> NDArray:
    """Render a still high-contrast shape in noise that is drawn anew for every frame: nothing moves."""
    still = np.zeros((1, 2))
    noise = np.concatenate([texture(rng, size, look.wavelength, still) for _ in range(frames)])
    return noise * (DIM + (1 - DIM) * mask(scene, size, still))


def sprites(scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int) -> NDArray:
    """Render a moving shape with a high-contrast texture over a static low-contrast texture."""
    steps = path(scene, frames)
    inside = mask(scene, size, steps)
    background = texture(rng, size, look.wavelength, np.zeros((1, 2)))
    return inside * texture(rng, size, look.wavelength, steps) + (1 - inside) * DIM * background


def figures(scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int) -> NDArray:
    """Render a shape that only motion reveals: the texture inside moves opposite to the texture outside."""
    steps = path(scene, frames)
    # The edge is blurred, because a sharp edge would be visible in a single frame.
    inside = mask(scene, size, np.zeros((1, 2)), look.wavelength / 5)
    figure, ground = (texture(rng, size, look.wavelength, sign * steps) for sign in (1, -1))
    # The division makes the variance the same everywhere, also at the edge of the shape.
    return (inside * figure + (1 - inside) * ground) / np.hypot(inside, 1 - inside)


FAMILIES: dict[str, Callable[[Scene, Look, np.random.Generator, int, int], NDArray]] = {
    "flow": flow,
    "dots": dots,
    "layout": layout,
    "sprites": sprites,
    "figures": figures,
}


def render(
    scene: Scene, look: Look, rng: np.random.Generator, size: int, frames: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render a scene in a look; return brightness levels (T, H, W) and the levels' colours (LEVELS, 3)."""
    field = FAMILIES[scene.family](scene, look, rng, size, frames)
    brightness = np.clip(0.5 + look.contrast * field, 0, 1) * (LEVELS - 1)
    light = np.arange(LEVELS)[:, None] / (LEVELS - 1)
    palette = (1 - light) * look.dark + light * look.light
    return np.rint(brightness).astype(np.uint8), np.rint(palette).astype(np.uint8)
