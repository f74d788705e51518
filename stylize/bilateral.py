"""Temporal bilateral filter: average similar colours along the motion path of each pixel."""

from collections.abc import Iterable, Iterator

import numpy as np

from static_dynamic.stylize.flow import Flow, Frame, dense_flow, grid, look_up


def bilateral(frames: Iterable[Frame], window: int = 15, divisor: float = 16) -> Iterator[Frame]:
    """Yield each frame, after averaging every pixel with similar colours along the pixel's motion path.

    The weights are those of Texler et al.'s tool: exp(-k^2 / 2 s^2) with s = window / 3 for the frame k steps
    away, times exp(-d^2 / 2 c^2) with the RGB distance d and c = sqrt(3) 255 / divisor (27.6 grey levels).
    The flows between successive frames are chained to reach the frame k steps away. `window` is the number of
    frames on either side (15 in Texler et al.'s tool).

    Frames are read only when they are needed. At most 2 window + 1 frames and 2 window flows are in memory,
    about 330 bytes per pixel.
    """
    held: dict[int, Frame] = {}
    # `to_past` maps a frame number to the flow to the previous frame
    to_past: dict[int, Flow] = {}
    # `to_next` maps a frame number to the flow to the next frame
    to_next: dict[int, Flow] = {}
    source, read, t = iter(frames), 0, 0
    while True:
        while read <= t + window and (frame := next(source, None)) is not None:
            held[read] = frame
            if read:
                to_past[read] = dense_flow(frame, held[read - 1])
                to_next[read - 1] = dense_flow(held[read - 1], frame)
            read += 1
        if t == read:
            return
        yield _average(t, held, {-1: to_past, +1: to_next}, window, divisor)
        held.pop(t - window, None)
        to_past.pop(t - window + 1, None)
        to_next.pop(t, None)
        t += 1


def _average(
    t: int, held: dict[int, Frame], flows: dict[int, dict[int, Flow]], window: int, divisor: float
) -> Frame:
    spread, colour = window / 3, np.sqrt(3) * 255 / divisor
    centre = held[t].astype(np.float32)
    total, weights = centre.copy(), np.ones((*centre.shape[:2], 1), np.float32)
    for step, flow in flows.items():
        position = grid(*centre.shape[:2])
        for k in range(1, window + 1):
            i = t + step * k
            if i not in held:
                break
            position = position + look_up(flow[i - step], position)
            value = look_up(held[i].astype(np.float32), position)
            distance = np.square(value - centre).sum(-1, keepdims=True)
            weight = np.exp(-(k**2) / (2 * spread**2) - distance / (2 * colour**2))
            total += weight * value
            weights += weight
    return (total / weights + 0.5).astype(np.uint8)
