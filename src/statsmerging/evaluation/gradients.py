"""Fisher diagonals, the evidence of Fisher merging: from unlabeled images, no ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from statsmerging.data.image_cache import ImageSplit
from statsmerging.records.progress import track
from statsmerging.zoo.experts import Expert, Zoo
from statsmerging.zoo.inference import weights_on


def fisher_diagonals(
    zoo: Zoo,
    images: Mapping[str, ImageSplit],
    *,
    images_per_task: int = 256,
    labels_per_image: int | None = 1,
    seed: int = 0,
) -> dict[str, dict[str, Tensor]]:
    """Diagonal of every expert's Fisher information on its own task's images.

    F_k = mean over images of E_y (∇ log p(y | x))², entry by entry, where y follows the expert's
    own prediction p(· | x) and not the ground truth (Matena & Raffel, *Merging Models with
    Fisher-Weighted Averaging*, NeurIPS 2022, section 3.1). One image at a time: the square of a
    batch's gradient is not the sum of its images' squares.

    Args:
        images: task name → unlabeled images; labels are not read.
        images_per_task: at most so many images, evenly spread over the split.
        labels_per_image: labels drawn from the prediction, one backward pass each; ``None`` for
            the exact expectation, one backward pass for each class.
        seed: of the drawn labels.

    Returns:
        Task → parameter name → tensor of the parameter's shape, float32, on the CPU.
    """
    return {
        task: _fisher_diagonal(
            zoo,
            zoo.experts[task],
            split.sample(images_per_task).images,
            labels_per_image,
            torch.Generator().manual_seed(seed),
            description=f"Fisher information on {task}",
        )
        for task, split in images.items()
    }


def _fisher_diagonal(
    zoo: Zoo,
    expert: Expert,
    images: Tensor,
    labels_per_image: int | None,
    generator: torch.Generator,
    *,
    description: str,
) -> dict[str, Tensor]:
    backbone, head = zoo.backbone.eval().to(zoo.device), expert.head.to(zoo.device)
    state = {name: tensor.detach() for name, tensor in expert.state.items()}
    weights = weights_on(zoo.device, state)
    parameters = [name for name, _ in backbone.named_parameters()]
    leaves = [weights[name].requires_grad_() for name in parameters]
    squares = [torch.zeros_like(leaf) for leaf in leaves]
    for image in track(images.split(1), description, total=len(images)):
        inputs = zoo.preprocess.normalise(image.to(zoo.device))
        features = functional_call(backbone, weights, (inputs,))
        log_likelihoods = head(features).log_softmax(dim=1).squeeze(0)
        for label, share in _labels(log_likelihoods.detach().exp(), labels_per_image, generator):
            gradients = torch.autograd.grad(
                log_likelihoods[label],
                leaves,
                retain_graph=True,
                materialize_grads=True,
            )
            for square, gradient in zip(squares, gradients, strict=True):
                square.addcmul_(gradient, gradient, value=share / len(images))
    return {name: square.cpu() for name, square in zip(parameters, squares, strict=True)}


def _labels(
    prediction: Tensor, draws: int | None, generator: torch.Generator
) -> Iterator[tuple[int, float]]:
    """Labels and their shares in the expectation over a prediction (C)."""
    if draws is None:
        yield from enumerate(prediction.tolist())
        return
    # Drawn on the CPU: generators of different devices give different numbers.
    for label in torch.multinomial(prediction.cpu(), draws, True, generator=generator).tolist():
        yield label, 1 / draws
