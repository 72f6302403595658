"""Training objective (Section III-C3, eq. 5-9), one function per term.

A batch of B sub-images has 2B rows: rows 0..B-1 are the first views, rows B..2B-1 the second views of the same
sub-images. A term is zero, with zero gradient, if no row takes part in it. In distributed training the features and
logits of all ranks are gathered first, so that these functions receive the whole batch.

Shape suffixes: B sub-images, 2B views, D feature width, H heads, C = n_base + n_novel classes; `...` leading
dimensions, such as heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ancd_ray.method.pseudo_labels import pseudo_labels


@dataclass(frozen=True)
class LossWeights:
    """Weights and temperatures of the objective.

    The temperatures of the contrastive losses are those of the released program (as in SimGCD); the text of the paper
    has 0.07 for `tau_rep_unsup` and 1.0 for `tau_rep_sup`.
    """

    lam: float = 0.3  # λ of eq. 9: weight of the supervised terms, 1 − λ that of the others
    mu: float = 4.0  # μ of eq. 9: weight of the mean-entropy regularizer
    tau_rep_unsup: float = 1.0  # τ_u of eq. 5
    tau_rep_sup: float = 0.07  # τ_c of eq. 6
    student_temp: float = 0.1  # τ_s
    novel_only: bool = False  # regularize over the novel classes only
    sizes: tuple[float, ...] | None = None  # shares of the novel classes that the regularizer draws to; None: equal


def info_nce(z_2BD: Tensor, temperature: float) -> Tensor:
    """Compute the unsupervised contrastive loss L_rep^u (eq. 5), with the positive counted in the denominator.

    mean_j −log( exp(z_j·z_j' / τ) / Σ_{n≠j} exp(z_j·z_n / τ) ), j' the other view of j, features L2-normalized.

    Parameters
    ----------
    z_2BD
        Projections of all views; they are normalized here.
    temperature
        τ_u.
    """
    if not len(z_2BD):
        return z_2BD.sum()
    similarity = _similarity_without_self(z_2BD, temperature)
    rows = torch.arange(len(z_2BD), device=z_2BD.device)
    return F.cross_entropy(similarity, rows.roll(len(rows) // 2))


def supcon(z_2BD: Tensor, labels_B: Tensor, temperature: float) -> Tensor:
    """Compute the supervised contrastive loss L_rep^s (eq. 6) over labeled views.

    mean_j mean_{p ∈ P_j} −log( exp(z_j·z_p / τ) / Σ_{n≠j} exp(z_j·z_n / τ) ), P_j the other views with the label of j.

    Parameters
    ----------
    z_2BD
        Projections of the labeled views; they are normalized here.
    labels_B
        Class index of each sub-image.
    temperature
        τ_c.
    """
    if not len(z_2BD):
        return z_2BD.sum()
    log_probs = _similarity_without_self(z_2BD, temperature).log_softmax(dim=1)
    labels_2B = labels_B.repeat(2)
    positive = labels_2B[:, None] == labels_2B[None, :]
    positive.fill_diagonal_(False)  # the other view of the sub-image remains, so every row has a positive
    return -(log_probs.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1)).mean()


def cluster_distillation(student_logits: Tensor, teacher_probs: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute the clustering loss L_cls^u (eq. 8): pseudo labels of one view against predictions of the other.

    (CE(q̂, p̃) + CE(q̃, p̂)) / 2 with p = softmax(l / τ_s).

    Parameters
    ----------
    student_logits
        Cosine logits (..., 2B, C) of the unlabeled views.
    teacher_probs
        Their pseudo labels (..., 2B, C), see `pseudo_labels`; no gradient flows into them.
    temperature
        τ_s.

    Returns
    -------
    Tensor
        Loss of each leading index, (...).
    """
    n_views = student_logits.shape[-2]
    other_view = teacher_probs.detach().roll(n_views // 2, dims=-2)
    log_probs = (student_logits.float() / temperature).log_softmax(dim=-1)
    return -(other_view * log_probs).sum(dim=(-2, -1)) / max(n_views, 1)


def mean_entropy_regularizer(
    student_logits: Tensor, temperature: float = 0.1, n_base: int = 0, sizes: Sequence[float] | None = None
) -> Tensor:
    """Compute the regularizer L_reg = log C − H(p̄) ≥ 0, which is small if all classes are used.

    p̄ is the mean prediction over all rows. Eq. 9 adds the term with weight μ; the paper's formula −Σ p̄ log p̄ with
    the same sign would empty classes instead. With sizes π of the classes it is the divergence Σ p̄ log(p̄ / π), which
    for equal ones is the same.

    Parameters
    ----------
    student_logits
        Cosine logits (..., N, C) of the unlabeled views.
    temperature
        τ_s.
    n_base
        Number of leading classes to leave out; 0 takes base and novel classes together.
    sizes
        Shares of the classes that are not left out, above 0; None for equal ones.

    Returns
    -------
    Tensor
        Loss of each leading index, (...).
    """
    novel_logits = student_logits[..., n_base:].float()
    n_rows, n_classes = novel_logits.shape[-2:]
    if not n_rows:
        return novel_logits.sum(dim=(-2, -1))
    # The mean is taken in log space: an unused class has a mean near 0, where log and its gradient would overflow.
    log_mean = (novel_logits / temperature).log_softmax(dim=-1).logsumexp(dim=-2) - math.log(n_rows)
    if sizes is None:
        return math.log(n_classes) + (log_mean.exp() * log_mean).sum(dim=-1)
    return (log_mean.exp() * (log_mean - log_mean.new_tensor(sizes).log())).sum(dim=-1)


def labeled_cross_entropy(logits: Tensor, labels_B: Tensor, temperature: float = 0.1) -> Tensor:
    """Compute the supervised loss L_cls^l (eq. 7): mean cross-entropy of the labeled views.

    Parameters
    ----------
    logits
        Cosine logits (..., 2B, C).
    labels_B
        Index of the base class of each sub-image.
    temperature
        τ_s.

    Returns
    -------
    Tensor
        Loss of each leading index, (...).
    """
    log_probs = (logits.float() / temperature).log_softmax(dim=-1)
    rows = torch.arange(log_probs.shape[-2], device=logits.device)
    return -log_probs[..., rows, labels_B.repeat(2)].sum(dim=-1) / max(len(rows), 1)


def total_loss(
    z_2BD: Tensor,
    logits_H2BC: Tensor,
    labels_B: Tensor,
    normal_weight_B: Tensor,
    *,
    n_base: int,
    teacher_temp: float,
    weights: LossWeights,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the objective of eq. 9, averaged over heads.

    L = λ (L_rep^s + L_cls^l) + (1 − λ) (L_rep^u + L_cls^u + μ L_reg). L_rep^u is computed over all sub-images, base
    included; L_cls^u and L_reg over unlabeled ones, L_rep^s and L_cls^l over labeled ones.

    Parameters
    ----------
    z_2BD
        Projections of all views, not normalized.
    logits_H2BC
        Cosine logits of every head.
    labels_B
        Index of the base class, −1 for an unlabeled sub-image.
    normal_weight_B
        w of eq. 4; ignored for labeled sub-images.
    n_base
        Number of base classes, 0 without a base set.
    teacher_temp
        τ_t of this epoch.
    weights
        Constants of the objective.

    Returns
    -------
    total : Tensor
        The loss, a scalar.
    terms : dict of str to Tensor
        Detached terms `rep_u`, `rep_s`, `cls_u`, `cls_l`, `reg`, `total` (scalars) and `clustering_H`, which is
        L_cls^u + μ L_reg of each head: the head with the smallest mean of it is used for inference.
    """
    labeled_B = labels_B >= 0
    labeled_2B, novel_2B = labeled_B.repeat(2), ~labeled_B.repeat(2)
    novel_logits = logits_H2BC[:, novel_2B]
    teacher = pseudo_labels(novel_logits, n_base, teacher_temp, normal_weight_B[~labeled_B].repeat(2))

    cls_u_H = cluster_distillation(novel_logits, teacher, weights.student_temp)
    left_out = n_base if weights.novel_only or weights.sizes else 0
    reg_H = mean_entropy_regularizer(novel_logits, weights.student_temp, left_out, weights.sizes)
    cls_l_H = labeled_cross_entropy(logits_H2BC[:, labeled_2B], labels_B[labeled_B], weights.student_temp)
    rep_u = info_nce(z_2BD, weights.tau_rep_unsup)
    rep_s = supcon(z_2BD[labeled_2B], labels_B[labeled_B], weights.tau_rep_sup)

    clustering_H = cls_u_H + weights.mu * reg_H
    supervised = rep_s + cls_l_H.mean()
    unsupervised = rep_u + clustering_H.mean()
    total = weights.lam * supervised + (1 - weights.lam) * unsupervised
    terms = {
        "rep_u": rep_u,
        "rep_s": rep_s,
        "cls_u": cls_u_H.mean(),
        "cls_l": cls_l_H.mean(),
        "reg": reg_H.mean(),
        "total": total,
        "clustering_H": clustering_H,
    }
    return total, {name: term.detach() for name, term in terms.items()}


def _similarity_without_self(z_2BD: Tensor, temperature: float) -> Tensor:
    """Compute cosine similarities (2B, 2B) over the temperature, with −∞ on the diagonal."""
    z_2BD = F.normalize(z_2BD.float(), dim=1)
    similarity = z_2BD @ z_2BD.T / temperature
    itself = torch.eye(len(z_2BD), dtype=torch.bool, device=z_2BD.device)
    return similarity.masked_fill(itself, -torch.inf)
