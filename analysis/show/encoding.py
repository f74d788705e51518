"""Encode frames as H.264 video, and pictures as ``data:`` URIs for HTML pages."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 80


@contextmanager
def video_writer(path: Path, fps: float, **options: object) -> Iterator[Callable[[NDArray], None]]:
    """Open an MP4 video; yield a function that appends a frame (H, W, 3). All frames have the same size.

    Frames are uint8. The codec is H.264, or MPEG-4 Part 2 if PyAV lacks H.264; `options` go to the codec.
    """
    codec = next(name for name in ("libx264", "mpeg4") if name in av.codecs_available)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", options

        def write(frame: NDArray) -> None:
            # H.264 stores colour channels at half the resolution, so height and width must be even.
            height, width = (side - side % 2 for side in frame.shape[:2])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            cut = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))

        yield write
        container.mux(stream.encode(None))


def jpeg_uri(picture: NDArray[np.uint8]) -> str:
    """Return a picture (H, W, 3) as a ``data:`` URI in JPEG format."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
    return jpeg_data_uri(file.getvalue())


def jpeg_data_uri(content: bytes) -> str:
    """Return the content of a JPEG file as a ``data:`` URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
