"""Declarative participants: a database of ours described in YAML, without code.

`shape.py`: what a file may say; `load.py`: reads one and finds its mistakes, each with line and column; `build.py`: the
declaration, the migrations and the query of facts that follow from it.
"""
