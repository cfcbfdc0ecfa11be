"""Jiebang 解绑: take a real name back from every database and clearing network, all or nothing."""

__version__ = "0.1.0"
