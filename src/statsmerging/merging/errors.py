"""What the heart raises when its inputs cannot be merged."""


class MergingError(ValueError):
    """The given weights cannot be merged; the message is one line that names the tensors."""
