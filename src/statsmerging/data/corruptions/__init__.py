"""Image corruptions for evaluation and adaptation under distribution shift.

The kinds and severities are those of CIFAR-10-C and ImageNet-C (Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019).

A corruption acts on the decoded image, before it is resized for the backbone. Its constants are in
pixels of the decoded image, whatever its size. If the image is much larger than those of the
benchmark (32 × 32 and 224 × 224), the resize averages noise away and shortens a blur, so the same
severity is milder; on a much smaller image it is harsher. The published tables of model merging
share this property.
"""
