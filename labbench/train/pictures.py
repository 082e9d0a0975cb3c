"""Earlier import path of `labbench.read_image`, kept for existing task files."""

from labbench.train.data.image_folder import read_image as read_picture

__all__ = ["read_picture"]
