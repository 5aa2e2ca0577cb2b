"""Make fisherkit/images/data/fashion_mini.npz: a class-balanced part of Fashion-MNIST, 5,000 + 1,000 images.

    python scripts/make_fashion_mini.py [FOLDER] [--out FILE]

FOLDER holds the four official IDX files, gz or plain; Debian's package dataset-fashion-mnist puts them at the
default place. Taken are the first 500 training and the first 100 test images of every class, in the order of
the official files, 28 x 28 uint8. The same files give the same arrays everywhere and, with the same zlib, the
same bytes. Prints the mean and the standard deviation that fisherkit/images/catalogue.py states.
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np

from fisherkit.images.contents import Content, read_folder
from fisherkit.images.fashion_mini import DATA
from fisherkit.images.idx import decode
from fisherkit.images.releases import FASHION_IDX

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
OUT = Path(__file__).resolve().parents[1] / "fisherkit" / "images" / "data" / DATA


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of the first images of every class, in the order of the file."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)]))


def official_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The chosen images (as [images, column, row]: they compress better so) and labels, by their stored name."""
    contents = read_folder(folder, FASHION_IDX.files, FASHION_IDX.suffixes)
    check_official(contents)
    arrays = {}
    for split, pair, count in (("train", contents[:2], 500), ("test", contents[2:], 100)):
        images, labels = decode(pair, classes=10)
        chosen = first_of_each_class(labels, count)
        arrays[f"{split}_images_transposed"] = images[chosen, 0, 2:30, 2:30].transpose(0, 2, 1)
        arrays[f"{split}_labels"] = labels[chosen].astype(np.uint8)
    return arrays


def check_official(contents: list[Content]) -> None:
    """Stop unless the files are the official ones."""
    for content in contents:
        if not content.matches(content.file.checksum):
            raise SystemExit(f"{content.place} is not the official file: its checksum differs.")


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz with fixed dates and the highest compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.ascontiguousarray(array))
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, always
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


def main() -> None:
    """Write the file and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEBIAN, help=f"default: {DEBIAN}")
    parser.add_argument("--out", type=Path, default=OUT, help="default: the file in the package")
    arguments = parser.parse_args()
    arrays = official_arrays(arguments.folder)
    data = npz_bytes(arrays)
    arguments.out.write_bytes(data)
    pixels = np.pad(arrays["train_images_transposed"], ((0, 0), (2, 2), (2, 2))) / 255
    print(f"{arguments.out}: {len(data):,} bytes; mean {pixels.mean():.4f}, std {pixels.std():.4f}")


if __name__ == "__main__":
    main()
