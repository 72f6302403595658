"""Mask-guided attention (Section III-C1, eq. 2-3): the class token attends only to the patches of the anomaly.

Only the class row of the attention is masked, so most of the computation needs no mask: patch rows use fused attention,
the class row is a separate query. After the last block only the class token is used; there a single query, the keys and
values of the visible tokens and an MLP on one row give the same result and the same gradients.

Shape suffixes: B views, H height, W width, N patch tokens, S sequence (class token first, then the others), h heads,
d head width, D token width, R selected rows, L visible tokens (padded). A rotary table holds sine and cosine side by
side, (..., S, 2d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MaskMode = Literal["class", "patch", "all", "none"]
"""Rows of the attention that are masked (Table IV): the class token (the paper's choice), patches, all or none."""


def visible_tokens(masks_BHW: Tensor, rows: int, cols: int) -> Tensor:
    """Find the patches of which the masks cover at least half.

    Eq. 3 requires more than half; exactly half counts here as well.

    Parameters
    ----------
    masks_BHW
        Masks with values in 0..1.
    rows, cols
        Size of the patch grid.

    Returns
    -------
    Tensor
        Boolean (B, rows · cols), in row-major order.
    """
    share_BHW = F.adaptive_avg_pool2d(masks_BHW[:, None].float(), (rows, cols))
    return share_BHW.flatten(1) >= 0.5


def guided_attention(q_BhSd: Tensor, k_BhSd: Tensor, v_BhSd: Tensor, visible_BS: Tensor, mode: MaskMode) -> Tensor:
    """Compute attention in which the rows selected by `mode` attend only to visible tokens (eq. 2).

    Parameters
    ----------
    q_BhSd, k_BhSd, v_BhSd
        Queries, keys and values; row 0 is the class token.
    visible_BS
        Boolean mask of visible tokens; the class token must be visible, so that it attends at least to itself.
    mode
        Which rows are masked.

    Returns
    -------
    Tensor
        Attended values (B, h, S, d).
    """
    if mode == "none":
        return F.scaled_dot_product_attention(q_BhSd, k_BhSd, v_BhSd)
    mask_B11S = visible_BS[:, None, None, :]
    class_mask = mask_B11S if mode in ("class", "all") else None
    patch_mask = mask_B11S if mode in ("patch", "all") else None
    # Two calls: without a mask the patch rows use the fused kernel.
    class_row = F.scaled_dot_product_attention(q_BhSd[:, :, :1], k_BhSd, v_BhSd, attn_mask=class_mask)
    patch_rows = F.scaled_dot_product_attention(q_BhSd[:, :, 1:], k_BhSd, v_BhSd, attn_mask=patch_mask)
    return torch.cat([class_row, patch_rows], dim=2)


def rotate(x_BhSd: Tensor, table: Tensor, half: bool) -> Tensor:
    """Apply rotary position embedding: rotate every pair of channels by the angle of its token.

    Parameters
    ----------
    x_BhSd
        Queries or keys.
    table
        Rotary table; a token without a position has sine 0 and cosine 1.
    half
        Whether pairs are (i, i + d/2) rather than neighbors (2i, 2i + 1).
    """
    sin, cos = table.chunk(2, dim=-1)
    if half:
        first, second = x_BhSd.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-x_BhSd[..., 1::2], x_BhSd[..., ::2]], dim=-1).flatten(-2)
    return (x_BhSd * cos + turned * sin).to(x_BhSd.dtype)


def prepend_identity_rotations(table_N2d: Tensor, n: int) -> Tensor:
    """Prepend `n` rows that rotate nothing (sine 0, cosine 1) to a rotary table."""
    sin, cos = torch.zeros_like(table_N2d[:1]).expand(n, -1).chunk(2, dim=-1)
    return torch.cat([torch.cat([sin, cos + 1], dim=-1), table_N2d])


def grid_positions(rows: int, cols: int, n: int) -> Tensor:
    """Compute positions (row + 1, column + 1) of the patches, in row-major order.

    The first `n` of the n + N rows are (0, 0), for tokens without a position.
    """
    positions_N2 = torch.cartesian_prod(torch.arange(1.0, rows + 1), torch.arange(1.0, cols + 1))
    return F.pad(positions_N2, (0, 0, n, 0))


def apply_by_length(visible_BL: Tensor, attend: Callable[[Tensor, int], Tensor], groups: int = 4) -> Tensor:
    """Apply `attend(rows, length)` to groups of views of similar length, so that little is computed for padding.

    Parameters
    ----------
    visible_BL
        Boolean mask of visible tokens; the length of a view is the position of its last visible token.
    attend
        Function of the rows of a group and the length of its longest view.
    groups
        Number of groups.

    Returns
    -------
    Tensor
        Results (B, ...) in the order of the views.
    """
    length_B = (visible_BL * torch.arange(1, visible_BL.shape[1] + 1, device=visible_BL.device)).amax(dim=1)
    order_B = length_B.argsort(descending=True)
    parts = [attend(rows, max(1, int(length_B[rows[0]]))) for rows in order_B.chunk(groups)]
    return torch.cat(parts)[order_B.argsort()]


class GuidedBlock(nn.Module):
    """Pre-norm transformer block with mask-guided attention, built from the layers of an ordinary block.

    x ← x + scale1(proj(attention(norm1(x)))), x ← x + scale2(mlp(norm2(x))). Queries, keys and values have separate
    projections, so that the class row can skip the queries of all other tokens.

    Parameters
    ----------
    heads
        h, number of heads.
    norm1, norm2
        Norms before the attention and before the MLP.
    q, k, v
        Projections from D to h·d.
    proj
        Projection from h·d to D.
    mlp
        MLP on D.
    q_norm, k_norm
        Norms of queries and keys, on d.
    scale1, scale2
        Layer scales of the two residual branches.
    rotate_half
        See `rotate`.
    """

    def __init__(
        self,
        heads: int,
        *,
        norm1: nn.Module,
        q: nn.Module,
        k: nn.Module,
        v: nn.Module,
        proj: nn.Module,
        norm2: nn.Module,
        mlp: nn.Module,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        scale1: nn.Module | None = None,
        scale2: nn.Module | None = None,
        rotate_half: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.rotate_half = heads, rotate_half
        self.norm1, self.norm2, self.mlp = norm1, norm2, mlp
        self.q, self.k, self.v, self.proj = q, k, v, proj
        self.q_norm, self.k_norm = q_norm or nn.Identity(), k_norm or nn.Identity()
        self.scale1, self.scale2 = scale1 or nn.Identity(), scale2 or nn.Identity()
        self._keys_are_linear = isinstance(self.k_norm, nn.Identity) and isinstance(norm1, nn.LayerNorm)

    def forward(
        self, x_BSD: Tensor, table: Tensor | None = None, *, visible_BS: Tensor | None = None, mode: MaskMode = "class"
    ) -> Tensor:
        """Compute all tokens (B, S, D) after the block.

        Parameters
        ----------
        x_BSD
            Tokens before the block.
        table
            Rotary table, if the model has one.
        visible_BS
            Boolean mask of visible tokens; without it the block is an ordinary one.
        mode
            Which rows are masked.
        """
        normed_BSD = self.norm1(x_BSD)
        q, k, v = self._queries(normed_BSD, table), self._keys(normed_BSD, table), self._split(self.v(normed_BSD))
        if visible_BS is None:
            return self._finish(x_BSD, F.scaled_dot_product_attention(q, k, v))
        return self._finish(x_BSD, guided_attention(q, k, v, visible_BS, mode))

    def selected_rows(
        self, x_BSD: Tensor, rows_BR: Tensor, table: Tensor | None = None, *, visible_BS: Tensor
    ) -> Tensor:
        """Compute selected tokens (B, R, D) after the block.

        Parameters
        ----------
        x_BSD
            All tokens before the block.
        rows_BR
            Positions of the selected tokens in the sequence. The first is the class token, which attends to visible
            tokens; the others attend to all tokens.
        table
            Rotary table, if the model has one.
        visible_BS
            Boolean mask of visible tokens.
        """
        index_BRD = rows_BR[..., None].expand(-1, -1, x_BSD.shape[-1])
        normed_BSD = self.norm1(x_BSD)
        q = self._queries(normed_BSD.gather(1, index_BRD), None if table is None else table[rows_BR][:, None])
        k, v = self._keys(normed_BSD, table), self._split(self.v(normed_BSD))
        return self._finish(x_BSD.gather(1, index_BRD), guided_attention(q, k, v, visible_BS, "class"))

    def class_row(self, x_BSD: Tensor, table: Tensor | None = None, *, visible_BS: Tensor) -> Tensor:
        """Compute the class token (B, D) after the block, from itself and the visible tokens.

        Parameters
        ----------
        x_BSD
            Tokens before the block.
        table
            Rotary table, if the model has one.
        visible_BS
            Boolean mask of visible tokens, the class token included; the others may be padding.
        """
        if self._keys_are_linear and table is None:
            return self._finish(x_BSD[:, :1], self._attend_from_tokens(x_BSD, visible_BS))[:, 0]
        return self._finish(x_BSD[:, :1], self._attend_from_heads(x_BSD, table, visible_BS))[:, 0]

    def _attend_from_heads(self, x_BSD: Tensor, table: Tensor | None, visible_BS: Tensor) -> Tensor:
        """Compute attention (B, h, 1, d) of the class row over keys and values of all tokens."""
        normed_BSD = self.norm1(x_BSD)
        q = self._queries(normed_BSD[:, :1], None if table is None else table[..., :1, :])
        k, v = self._keys(normed_BSD, table), self._split(self.v(normed_BSD))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=visible_BS[:, None, None, :])

    def _attend_from_tokens(self, x_BSD: Tensor, visible_BS: Tensor) -> Tensor:
        """Compute the same attention for keys that are linear in the tokens, without projecting the tokens.

        q_h · W_h n = (W_hᵀ q_h) · n, and the average of values is the value of the average. With n = γ n̂ + β, the
        term that is the same for every token (β) does not change the softmax. So the only large tensor, n̂, needs no
        gradient, and S · D · h multiplications replace S · D².
        """
        norm, key, value = (cast(Any, layer) for layer in (self.norm1, self.k, self.v))
        q_BhSd = self._queries(norm(x_BSD[:, :1]), None)
        key_hdD, value_hdD = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (key, value))
        reach_BhD = torch.einsum("bhsd,hdD->bhD", q_BhSd, key_hdD) * (norm.weight * q_BhSd.shape[-1] ** -0.5)

        def attend(rows: Tensor, length: int) -> Tensor:
            normed_BSD = F.layer_norm(x_BSD[rows, :length], x_BSD.shape[-1:], eps=norm.eps)
            logits_BhS = reach_BhD[rows] @ normed_BSD.transpose(1, 2)
            weights_BhS = logits_BhS.masked_fill(~visible_BS[rows, None, :length], -torch.inf).softmax(dim=-1)
            attended_BhD: Tensor = weights_BhS @ normed_BSD
            return attended_BhD

        average_BhD = apply_by_length(visible_BS, attend) * norm.weight + norm.bias
        if key.bias is not None:  # it does not change the softmax either, but DDP expects its gradient, which is 0
            average_BhD = average_BhD + 0 * key.bias.sum()
        v_BhSd = torch.einsum("bhD,hdD->bhd", average_BhD, value_hdD)[:, :, None]
        return v_BhSd if value.bias is None else v_BhSd + value.bias.view(1, self.heads, 1, -1)

    def _queries(self, x_BSD: Tensor, table: Tensor | None) -> Tensor:
        q_BhSd: Tensor = self.q_norm(self._split(self.q(x_BSD)))
        return q_BhSd if table is None else rotate(q_BhSd, table, self.rotate_half)

    def _keys(self, x_BSD: Tensor, table: Tensor | None) -> Tensor:
        k_BhSd: Tensor = self.k_norm(self._split(self.k(x_BSD)))
        return k_BhSd if table is None else rotate(k_BhSd, table, self.rotate_half)

    def _split(self, x_BSD: Tensor) -> Tensor:
        return x_BSD.reshape(*x_BSD.shape[:2], self.heads, -1).transpose(1, 2)

    def _finish(self, x_BSD: Tensor, attended_BhSd: Tensor) -> Tensor:
        x_BSD = x_BSD + self.scale1(self.proj(attended_BhSd.transpose(1, 2).flatten(2)))
        x_BSD = x_BSD + self.scale2(self.mlp(self.norm2(x_BSD)))
        return x_BSD


class LastBlock(nn.Module):
    """The trainable end of a ViT: the last block for the class token only, followed by the frozen final norm.

    If there is a rotary table, the class token and the tokens carry their `grid_positions` in two more channels.

    Parameters
    ----------
    block
        The block that is trained.
    norm
        Final norm, frozen.
    dim
        D, token width without the positions.
    table_N2d
        Rotary table of the patch grid.
    cols
        Number of columns of the patch grid.
    """

    table_P2d: Tensor | None

    def __init__(self, block: GuidedBlock, norm: nn.Module, dim: int, table_N2d: Tensor | None = None, cols: int = 0):
        super().__init__()
        self.dim, self.cols = dim, cols
        self.block = block.requires_grad_(True)
        self.norm = norm.requires_grad_(False)
        table_P2d = None if table_N2d is None else prepend_identity_rotations(table_N2d, 1)
        self.register_buffer("table_P2d", table_P2d, persistent=False)

    def forward(self, cls_BD: Tensor, tokens_BLD: Tensor, key_mask_BL: Tensor) -> Tensor:
        """Compute class tokens (B, D) from a class token and patch tokens before the block.

        Parameters
        ----------
        cls_BD, tokens_BLD
            Class token and other tokens, float32 or 16 bits; computed in the precision of the block.
        key_mask_BL
            Boolean mask of visible tokens; the others may have any finite value.
        """
        x_BSD = torch.cat([cls_BD[:, None], tokens_BLD], dim=1).to(next(self.block.parameters()).dtype)
        table_B1S2d = None
        if self.table_P2d is not None:
            row_BS, col_BS = x_BSD[..., self.dim :].long().unbind(dim=-1)
            index_BS = ((row_BS - 1) * self.cols + col_BS).clamp(0, len(self.table_P2d) - 1)
            table_B1S2d = self.table_P2d[index_BS][:, None]
        visible_BS = F.pad(key_mask_BL, (1, 0), value=True)
        cls_BD = self.norm(self.block.class_row(x_BSD[..., : self.dim], table_B1S2d, visible_BS=visible_BS))
        return cls_BD

    def calibrate(self, cls_ND: Tensor) -> None:
        """Do nothing: a pretrained block needs no calibration."""
