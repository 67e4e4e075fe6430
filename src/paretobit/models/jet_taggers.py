"""The jet taggers of the field: small vector models."""

from torch import Tensor, nn

from paretobit.models.zoo import model, relu


class _Tagger(nn.Module):
    """Layers in a row, numbered as the field numbers them: `seq_blocks.0`, `seq_blocks.1`, …"""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.seq_blocks = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.seq_blocks(x)
        return logits


@model("jsc-tiny", "features", "jet tagger of one linear layer (117 parameters for 16 inputs, 5 classes)")
def _jsc_tiny(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    return _Tagger(nn.BatchNorm1d(width), relu(), nn.Linear(width, classes), relu())


@model("jsc-custom", "features", "jet tagger 32-16 with BatchNorm and dropout (1,295 parameters for 16 inputs)")
def _jsc_custom(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = [nn.BatchNorm1d(width), relu()]
    for hidden in (32, 16):
        layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), relu(), nn.Dropout(0.2)]
        width = hidden
    return _Tagger(*layers, nn.Linear(width, classes), nn.BatchNorm1d(classes), relu())


@model("jsc-three-linear", "features", "jet tagger 16-16 of three linear layers (661 parameters for 16 inputs)")
def _jsc_three_linear(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = [nn.BatchNorm1d(width), relu()]
    for after in (16, 16, classes):
        layers += [nn.Linear(width, after), relu()]
        width = after
    return _Tagger(*layers)


@model("jsc-hls4ml", "features", "the field's reference tagger 64-32-32 (4,389 parameters for 16 inputs)")
def _jsc_hls4ml(shape: tuple[int, ...], classes: int) -> nn.Module:
    (width,) = shape
    layers: list[nn.Module] = []
    for hidden in (64, 32, 32):
        layers += [nn.Linear(width, hidden), relu()]
        width = hidden
    return _Tagger(*layers, nn.Linear(width, classes))
