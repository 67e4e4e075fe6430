"""Random changes to training images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, then random horizontal flip, drawn for each image on its own.

    Args:
        crop_padding: Pixels of zeros added on each side before a crop of the original size; 0 for no crop.
        flip: Mirror left and right with probability one half.
    """

    crop_padding: int = 0
    flip: bool = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A changed copy of the images.

        Args:
            x: Images N×C×H×W; left as they are.
            generator: Source of all randomness.

        Returns:
            Images of the same shape and type, on the same device.
        """
        n, channels, height, width = x.shape
        ends, where = 2 * self.crop_padding + 1, generator.device  # the start of each crop, N×1
        top, left = (torch.randint(ends, (n, 1), generator=generator, device=where).to(x.device) for _ in range(2))
        rows = top + torch.arange(height, device=x.device)
        columns = left + torch.arange(width, device=x.device)
        if self.flip:
            mirrored = torch.rand(n, 1, generator=generator, device=generator.device).to(x.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(x, [self.crop_padding] * 4)
        image = torch.arange(n, device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
