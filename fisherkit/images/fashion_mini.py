"""The image set in the package: 5,000 + 1,000 real images of Fashion-MNIST (MIT license, beside the data)."""

from importlib import resources

import numpy as np
from jaxtyping import Int64, UInt8

from .idx import padded
from .releases import Split

DATA = "fashion_mini.npz"


def read(split: Split) -> tuple[UInt8[np.ndarray, "images 1 32 32"], Int64[np.ndarray, "images"]]:
    """Images and labels of one split, padded to 32 x 32."""
    path = resources.files("fisherkit.images") / "data" / DATA
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        # stored [images, column, row]: column by column the same pixels compress better
        images = arrays[f"{split}_images_transposed"].transpose(0, 2, 1)
        return padded(images), arrays[f"{split}_labels"].astype(np.int64)
