"""Deterministic simulator of the saga: the real `coordinator.step` and `fence` in a world that goes wrong.

One seed is one world: its sizes, its rates of faults and every event in it come from one seeded generator, and
time is a number. First everything may fail and only safety is asked for; then the world heals and every case must
end. `auditor.py` judges from the history alone and shares no code with what it judges.

Run `python -m sim --help`. The product never imports this package; this package imports `jiebang.model` and
`jiebang.saga` alone.
"""
