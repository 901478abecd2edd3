"""Image corruptions for evaluation and adaptation under distribution shift.

The kinds and their severities are those of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019).

A corruption acts on the image as decoded, before it is resized for the backbone, and its constants
are in pixels of that image, whatever its size. On an image much larger than those of the benchmark
(32 × 32 and 224 × 224) the resize averages noise away and shortens a blur, so the same severity is
milder; on a much smaller one it is harsher. The published tables of model merging have that too.
"""
