"""Make SQLite frame stores, as Class Feature Pyramids reads them: OUT/VIDEO/frames.db for each video.

    python misc/make_frames_db.py style_1 stores/style_1

SOURCE holds videos (folders of images, or video files), in class folders or not. Images go in as they are,
the frames of video files as png. Table Images(ObjId, frames), key VIDEO/frame_00001. What is there already
stays.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from static_dynamic.command import Options, command
from static_dynamic.datasets.discovery import find_video, require_videos
from static_dynamic.datasets.frames import STORE_NAME
from static_dynamic.datasets.write import write_store


@command
def main() -> None:
    """Make the stores."""
    parser = Options(__doc__)
    parser.add_argument("source", type=Path, help="folder of videos")
    parser.add_argument("out", type=Path)
    parser.add_argument("--first", type=int, default=1, help="number of the first frame (default 1)")
    arguments = parser.parse_args()
    names = require_videos(arguments.source)
    frames = 0
    for name in tqdm(names, unit="video"):
        if not (arguments.out / name / STORE_NAME).exists():
            frames += write_store(find_video(arguments.source, name), arguments.out / name, arguments.first)
    print(f"{arguments.out}: {len(names)} videos, {frames} frames written")


if __name__ == "__main__":
    sys.exit(main())
