"""Frozen convolutional networks in a form that computes the same with less work."""

from __future__ import annotations

from itertools import pairwise

from timm.layers import Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_norms(module: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution into its weights, which saves a pass over the activations."""
    for (name, one), (next_name, other) in pairwise(list(module.named_children())):
        if isinstance(one, nn.Conv2d) and isinstance(other, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(one, other))
            setattr(module, next_name, getattr(other, "act", nn.Identity()))  # timm's norm includes the activation
    for child in module.children():
        fold_norms(child)
    return module


def fix_padding(module: nn.Module) -> nn.Module:
    """Pad by constants before convolutions of stride 2, in place of what timm computes from the size of the input.

    It is the same where sides are even, as they are at every stride of images whose sides are multiples of 32, and a
    compiler can merge it with the convolution.
    """
    for name, child in module.named_children():
        if isinstance(child, Conv2dSame):
            missing = child.kernel_size[0] - child.stride[0]
            before, after = missing // 2, missing - missing // 2
            plain = nn.Conv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, groups=child.groups
            )
            plain.weight, plain.bias = child.weight, child.bias
            setattr(module, name, nn.Sequential(nn.ZeroPad2d((before, after, before, after)), plain))
        else:
            fix_padding(child)
    return module
