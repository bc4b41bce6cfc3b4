"""A peer of TotalSegmentator with its command line: names voxels by their HU. Run as a program, never imported.

What it must not do, a test asks for through PEER: hang, fail, turn (another grid), stray (an id beyond the task).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

VERSION = "2.18.0"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", dest="input", type=Path)
    parser.add_argument("-o", dest="output", type=Path)
    parser.add_argument("-ml", "--ml", action="store_true")
    parser.add_argument("-ns", "--nr_thr_saving", type=int, default=6)
    parser.add_argument("-f", "--fast", action="store_true")
    parser.add_argument("-ta", "--task", choices=["total", "body"], default="total")
    parser.add_argument("-d", "--device", default="gpu")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("--version", action="version", version=os.environ.get("PEER_VERSION", VERSION))
    return parser.parse_args()


def main() -> None:
    given = options()
    peer = os.environ.get("PEER", "")
    with Path(os.environ["PEER_LOG"]).open("a") as log:
        log.write(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith("TOTALSEG")}]) + "\n")
    config = json.loads((Path(os.environ["TOTALSEG_HOME_DIR"]) / "config.json").read_text())
    if config["send_usage_stats"] or "OMP_NUM_THREADS" in os.environ or not given.ml:
        sys.exit("not called as agreed")
    if peer == "hang":
        time.sleep(600)
    if peer == "fail":
        sys.stderr.write("  0%|    | 0/5\r 40%|##  | 2/5\nTraceback ...\nRuntimeError: CUDA out of memory\n")
        sys.exit(1)
    segment(given, peer)


def segment(given: argparse.Namespace, peer: str) -> None:
    import nibabel
    import numpy as np

    image = nibabel.load(given.input)
    hu = np.asanyarray(image.dataobj)
    ids = np.select([hu > 200, hu > -200, (hu > -950) & (hu < -500)], [29, 5, 10], 0).astype(np.uint8)
    affine = image.affine.copy()
    if peer == "turn":
        affine[:3, 3] += 30
    if peer == "stray":
        ids[0, 0, 0] = 200
    nibabel.save(nibabel.Nifti1Image(ids, affine), given.output)


if __name__ == "__main__":
    main()
