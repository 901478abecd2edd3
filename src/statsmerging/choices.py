"""Closed lists of choices: ``merging/``, the config classes and ``runs/`` import them from here.

This module imports nothing but the standard library, so that a mistake in a command is answered
before torch is imported.
"""

from typing import Literal, get_args

# ---- what a run does
Job = Literal[
    "merge",
    "finetune",
    "distill",
    "evaluate",
    "check",
    "report",
    "compare",
    "bundle",
    "cache",
    "convert",
    "export",
    "reproduce",
    "corruptions",
    "transfer",
]
Accelerator = Literal["auto", "cpu", "gpu"]
PluginMethods = Literal["named", "all"]

# ---- images
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
LearningSplit = Literal["validation", "test"]
#: Of the unlabeled images: those that are learned from, and those that choose between values.
LearningPart = Literal["learning", "held_out"]
DistillationSplit = Literal["validation", "train"]
SuiteKind = Literal["embedded", "folder", "hub"]
#: ``data/corruptions/kinds.py`` defines all but ``none``.
CorruptionKind = Literal[
    "none",
    "motion_blur",
    "impulse_noise",
    "gaussian_noise",
    "pixelate",
    "pixelate_cifar32",
    "spatter",
    "contrast",
    "jpeg_compression",
]
CorruptionConstants = Literal["cifar10_c", "imagenet_c"]
CorruptionProtocol = Literal["adapt_and_test", "test_only"]

# ---- networks
Library = Literal["timm", "open_clip"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]
CropMode = Literal["center", "squash"]

# ---- statistics → coefficients
Source = Literal["weights", "task_vectors"]
Feature = Literal[
    "mean",
    "variance",
    "magnitude",
    "singular_values",
    "cosine",
    "relative_norm",
    "sign_agreement",
    "depth",
    "kind",
]
FEATURES: tuple[Feature, ...] = get_args(Feature)
Standardise = Literal["global", "per_layer", "both"]
#: Statistics of a singular direction; ``layer`` are those of its layer, as above.
DirectionFeature = Literal[
    "singular_value",
    "relative_value",
    "position",
    "energy",
    "interference",
    "alignment",
    "pretrained_energy",
    "experts",
    "layer",
    "relations",
    "depth",
    "kind",
    "tensor",
]
DIRECTION_FEATURES: tuple[DirectionFeature, ...] = get_args(DirectionFeature)
Granularity = Literal["layer_wise", "task_wise", "singular_wise"]
LearnerKind = Literal[
    "shared",
    "per_layer",
    "linear",
    "shared_and_free",
    "free",
    "free_per_layer",
    "constant_input",
]
#: Learners that have coefficients for other experts than those they learned from.
PREDICTING: tuple[LearnerKind, ...] = ("shared", "per_layer", "linear", "constant_input")
#: How coefficients of biases, norms and tokens are made; ``only``: theirs alone are learned;
#: ``trained``: such layers are trained themselves, as no merging does.
VectorCoefficients = Literal["learned", "table", "mean", "only", "trained"]
#: Learners of a method; ``masks`` are binary, of singular directions; ``released_code`` learns as
#: the published code does.
MethodLearner = Literal[LearnerKind, "masks", "released_code"]
#: What a method trains: coefficients, classification heads, which no merging does, or both.
Trains = Literal["coefficients", "coefficients_and_heads", "heads"]
Link = Literal["identity", "softmax", "sigmoid", "clamp"]

# ---- coefficients → weights
Anchor = Literal["pretrained", "none"]
Precision = Literal["float32", "bfloat16"]
#: Of batch normalisation in a merged model.
RunningStatistics = Literal["averaged", "pooled", "per_task", "auto"]

# ---- the learning step
Objective = Literal["teacher_labels", "entropy"]
LabelKind = Literal["hard", "soft", "ground_truth"]
Restrict = Literal["task", "none"]
LabelsFrom = Literal["teacher", "student"]
Accumulate = Literal["joint", "per_task"]
TuningRule = Literal["agreement", "leave_one_task_out"]

# ---- comparisons
ComparedTasks = Literal["seen", "unseen"]

# ---- merging methods
Needs = Literal["nothing", "unlabeled images", "activations", "gradients"]
Returns = Literal["state dict", "router", "adapters"]
