"""Twin-Merging: a shared model, and what each expert has beyond it, mixed anew for every image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from statsmerging.merging.bank import TaskVectorBank
from statsmerging.merging.errors import MergingError
from statsmerging.merging.methods.base import Method, parameter
from statsmerging.merging.methods.layers import is_matrix, layer_noise, stored_rows
from statsmerging.merging.methods.task_arithmetic import TaskArithmetic
from statsmerging.merging.singular_vectors import leading_triples
from statsmerging.merging.state_dicts import matrix_shape

#: Task and weights of the backbone → features of the task's unlabeled images, N × D.
Features = Callable[[str, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class TwinMerging(Method):
    """Twin-Merging (Lu et al., *Twin-Merging: Dynamic Integration of Modular Expertise in Model
    Merging*, NeurIPS 2024).

    1. Shared: θ* is task arithmetic.
    2. Exclusive: E_k holds of every matrix of θ_k − θ* the leading singular triples, and all other
       tensors as they are. A convolution is out × rest.
    3. Router: from an image's features under θ*, a network tells the task the image is of.

    An image's model is θ* + Σ_k w_k E_k with the router's softmax w. The router learns the tasks of
    unlabeled images by cross-entropy, and sees no class.

    Three things differ from the released code, for language models: it averages the last block's
    tokens, where the features here are what the heads see; it keeps the epoch with the best
    accuracy on test inputs, here it is the last; and it takes biases from the expert of the input's
    task, here they are tensors as all others. One expert gives itself if all triples are kept.

    Exclusive parts take as much memory as the task vectors, and an image as much time as a merge.

    Args:
        scale: λ of the shared model; 0.29 in the released code.
        share: of the singular triples of a matrix that are kept, rounded down, at least one; 0.1 in
            the released code.
        epochs: of the router; 50 there.
        learning_rate: of Adam, falling to 0 linearly; 5e-4 there.
        batch_size: images of all tasks together in a step, or a few more; 1024 there.
        seed: of the router's weights, its dropout and the order of the images.
    """

    name = "twin_merging"
    title = "Twin-Merging"
    needs = "unlabeled images"
    returns = "router"

    scale: float = parameter(0.3, at_least=0)
    share: float = parameter(0.1, above=0, at_most=1)
    epochs: int = parameter(50, at_least=0)
    learning_rate: float = parameter(5e-4, above=0)
    batch_size: int = parameter(1024, at_least=2)
    seed: int = parameter(0, at_least=0)

    def fit(self, backbone: nn.Module, bank: TaskVectorBank, features: Features) -> TwinModel:
        """The model, with a trained router.

        Args:
            backbone: a network whose state dict the bank was built from; it is copied.
            features: called once for each task.

        Raises:
            MergingError: fewer than two images.
        """
        shared = TaskArithmetic(self.scale).merge(bank)
        found = [features(task, shared) for task in bank.tasks]
        return TwinModel(backbone, self.exclusive(bank), self._fit_router(found))

    @torch.no_grad()
    def exclusive(self, bank: TaskVectorBank) -> TaskVectorBank:
        """θ* and all E_k, as a bank of their own."""
        shared, rows = TaskArithmetic(self.scale).merge(bank), stored_rows(bank)

        def parts(layer: str) -> Tensor:
            vectors, start = rows(layer), bank.pretrained[layer]
            beyond = vectors - self.scale * vectors.sum(dim=0)
            if not is_matrix(start, flatten_convolutions=True):
                return beyond
            shape = matrix_shape(start)
            rank = max(1, int(self.share * min(shape)))
            noise = layer_noise(bank, layer, vectors)
            left, values, right = leading_triples(beyond.view(-1, *shape), rank, noise)
            return (left * values.unsqueeze(1) @ right).flatten(1)

        return TaskVectorBank(
            bank.tasks,
            {layer: shared[layer] for layer in bank.layers},
            {layer: parts(layer) for layer in bank.layers},
            bank.kept,
        )

    def _fit_router(self, features: list[Tensor]) -> nn.Module:
        """A router that tells from features which task's they are; K tensors N_k × D."""
        inputs = torch.cat(features).float().cpu()
        tasks = torch.cat([torch.full((len(x),), k) for k, x in enumerate(features)])
        if len(inputs) < 2:
            raise MergingError(f"{self.name}: its router needs at least two images to learn from")
        # Dropout knows no generator; on the CPU the numbers are the same everywhere.
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(self.seed)
            router = task_router(inputs.shape[1], len(features))
            steps = max(1, len(inputs) // self.batch_size)  # per epoch: no batch is a single image
            optimizer = torch.optim.Adam(router.parameters(), lr=self.learning_rate)
            rate = torch.optim.lr_scheduler.LinearLR(
                optimizer, 1.0, 0.0, total_iters=max(1, self.epochs * steps)
            )
            for _ in range(self.epochs):
                for rows in torch.randperm(len(inputs)).tensor_split(steps):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(router(inputs[rows]), tasks[rows]).backward()
                    optimizer.step()
                    rate.step()
        return router.eval().requires_grad_(False)


def task_router(dimension: int, tasks: int) -> nn.Module:
    """Features N × D → logits N × K: three linear layers, the hidden ones of width 2 D."""
    width = 2 * dimension

    def hidden(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.LeakyReLU(), nn.Dropout(0.5)]

    return nn.Sequential(*hidden(dimension), *hidden(width), nn.Linear(width, tasks))


class TwinModel(nn.Module):
    """Images N × 3 × S × S → features N × D, each image under weights of its own.

    Args:
        backbone: a network whose state dict the bank's is; it is copied.
        exclusive: θ* and all E_k; it is referenced.
        router: features N × D → logits N × K.
    """

    def __init__(self, backbone: nn.Module, exclusive: TaskVectorBank, router: nn.Module) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone).eval()
        self.backbone.load_state_dict({**exclusive.kept, **exclusive.pretrained}, assign=True)
        self.backbone.requires_grad_(False)
        self.router = router.to(next(self.backbone.parameters()).device)
        self.exclusive = exclusive

    def forward(self, images: Tensor) -> Tensor:
        shares = self.router(self.backbone(images)).softmax(dim=1).to(self.exclusive.device)
        return torch.cat(
            [self._alone(image, own) for image, own in zip(images.split(1), shares, strict=True)]
        )

    def _alone(self, image: Tensor, shares: Tensor) -> Tensor:
        """Features of one image (1 × 3 × S × S → 1 × D) under its own weights."""
        weights = {
            name: tensor.to(image) if tensor.is_floating_point() else tensor.to(image.device)
            for name, tensor in self.exclusive.merge(shares).items()
        }
        features: Tensor = functional_call(self.backbone, weights, (image,))
        return features
