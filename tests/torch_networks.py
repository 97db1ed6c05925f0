"""The published architectures as PyTorch modules, for parity tests; key names are theirs too."""

from torch import cat, nn

norm = nn.InstanceNorm2d


class ResNet(nn.Module):
    """ResnetGenerator of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, channels_in, channels_out, width, num_blocks, dropout=False):
        super().__init__()
        layers = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels_in, width, 7),
            norm(width),
            nn.ReLU(True),
        ]
        for i in (1, 2):
            down = nn.Conv2d(width * i, width * 2 * i, 3, stride=2, padding=1)
            layers += [down, norm(width * 2 * i), nn.ReLU(True)]
        layers += [ResNetBlock(width * 4, dropout) for _ in range(num_blocks)]
        for i in (4, 2):
            up = nn.ConvTranspose2d(
                width * i, width * i // 2, 3, stride=2, padding=1, output_padding=1
            )
            layers += [up, norm(width * i // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels_out, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class ResNetBlock(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            norm(width),
            nn.ReLU(True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            norm(width),
        )

    def forward(self, x):
        return x + self.conv_block(x)


class HugganResNet(nn.Module):
    """GeneratorResNet of huggan; the width is 64 there."""

    def __init__(self, input_shape, num_residual_blocks, width=64):
        super().__init__()
        channels = input_shape[0]
        pad = nn.ReflectionPad2d(channels)
        layers = [pad, nn.Conv2d(channels, width, 7), norm(width), nn.ReLU()]
        for i in (1, 2):
            down = nn.Conv2d(width * i, width * 2 * i, 3, stride=2, padding=1)
            layers += [down, norm(width * 2 * i), nn.ReLU()]
        layers += [HugganBlock(width * 4) for _ in range(num_residual_blocks)]
        for i in (4, 2):
            conv = nn.Conv2d(width * i, width * i // 2, 3, padding=1)
            layers += [nn.Upsample(scale_factor=2), conv, norm(width * i // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(channels), nn.Conv2d(width, channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class HugganBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            norm(width),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            norm(width),
        )

    def forward(self, x):
        return x + self.block(x)


class UNet(nn.Module):
    """UnetGenerator of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, channels_in, channels_out, width, num_downs):
        super().__init__()
        widths = [channels_in, *(width * min(2**i, 8) for i in range(num_downs))]
        block = None
        for i in reversed(range(num_downs)):
            block = UNetBlock(widths[i], widths[i + 1], block, channels_out if i == 0 else None)
        self.model = block

    def forward(self, x):
        return self.model(x)


class UNetBlock(nn.Module):
    """Halves, lets the block inside work, doubles, and joins its own input to the result."""

    def __init__(self, outer, inner, block, channels_out):
        super().__init__()
        self.outermost = channels_out is not None
        down = nn.Conv2d(outer, inner, 4, stride=2, padding=1)
        up_in, up_out = inner * (2 if block else 1), channels_out or outer
        up = nn.ConvTranspose2d(up_in, up_out, 4, stride=2, padding=1)
        if self.outermost:
            layers = [down, block, nn.ReLU(), up, nn.Tanh()]
        elif block is None:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, norm(outer)]
        else:
            layers = [nn.LeakyReLU(0.2), down, norm(inner), block, nn.ReLU(), up, norm(outer)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else cat([x, self.model(x)], dim=1)


class Patch(nn.Module):
    """NLayerDiscriminator; with `huggan`, that code's Discriminator."""

    def __init__(self, channels, width, num_layers, huggan=False):
        super().__init__()
        layers = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        features = width
        for i in range(1, num_layers + 1):
            before, features = features, width * min(2**i, 8)
            stride = 2 if huggan or i < num_layers else 1
            conv = nn.Conv2d(before, features, 4, stride=stride, padding=1)
            layers += [conv, norm(features), nn.LeakyReLU(0.2, True)]
        layers += [nn.ZeroPad2d((1, 0, 1, 0))] if huggan else []
        layers += [nn.Conv2d(features, 1, 4, padding=1)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Pixel(nn.Module):
    """PixelDiscriminator."""

    def __init__(self, channels, width):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width * 2, 1),
            norm(width * 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width * 2, 1, 1),
        )

    def forward(self, x):
        return self.net(x)
