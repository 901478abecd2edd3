"""What the merged model learns from: its teachers' labels, or its own entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from statsmerging.distillation.settings import LabelSettings


def distillation_loss(student: Tensor, teacher: Tensor, labels: LabelSettings) -> Tensor:
    """Mean loss over the images the teacher is confident on; 0 if there is none.

    Hard labels and ground truth: cross-entropy against the arg-max of ``teacher``. Soft labels:
    KL(teacher ‖ student) at temperature τ, times τ² (Hinton et al., 2015).

    Args:
        student: scores of the merged model, n × C.
        teacher: scores of the teacher on the same images, n × C.
    """
    if labels.kind != "soft":
        losses = F.cross_entropy(student, teacher.argmax(dim=1), reduction="none")
    else:
        tau = labels.temperature
        divergence = F.kl_div(
            F.log_softmax(student / tau, dim=1),
            F.log_softmax(teacher / tau, dim=1),
            reduction="none",
            log_target=True,
        )
        losses = divergence.sum(dim=1) * tau**2
    confident = teacher.softmax(dim=1).amax(dim=1) >= labels.min_confidence
    return (losses * confident).sum() / confident.sum().clamp_min(1)


def entropy(student: Tensor) -> Tensor:
    """Mean entropy in nats of the predictions n × C (AdaMerging, Yang et al., ICLR 2024)."""
    log_probabilities = torch.log_softmax(student, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1).mean()
