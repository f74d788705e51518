"""Pack the frames of each video into an SQLite frame store, OUT/VIDEO/frames.db.

    python misc/make_frames_db.py style_1 stores/style_1

SOURCE holds folders of images or video files, with or without class folders. Images are copied byte by byte;
frames of video files are stored as png. The store has the format of the Class Feature Pyramids code: table
Images(ObjId, frames) with the keys VIDEO/frame_00001 and so on. Existing frame stores are kept. Unreadable
videos are listed and give exit status 1.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.discovery import find_video, require_videos
from static_dynamic.datasets.frames import STORE_NAME, BadFrames
from static_dynamic.datasets.write import write_store


@command
def main() -> int:
    """Write a frame store for each video that has none yet; return 1 if a video is unreadable."""
    parser = Options(__doc__)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("out", type=Path, help="folder of the frame stores")
    parser.add_argument("--first", type=int, default=1, help="number of the first frame")
    given = parser.parse_args()
    names = require_videos(given.source)
    frames, faults = 0, []
    for name in tqdm(names, unit="video"):
        if (given.out / name / STORE_NAME).exists():
            continue
        try:
            frames += write_store(find_video(given.source, name), given.out / name, given.first)
        except BadFrames as error:
            faults.append(str(error))
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{given.out}: {len(names) - len(faults)} of {len(names)} videos, {frames} frames written")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
