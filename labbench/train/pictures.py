"""Public import path of `read_picture`; the implementation is in `labbench.train.data.image_folder`."""

from labbench.train.data.image_folder import read_picture

__all__ = ["read_picture"]
