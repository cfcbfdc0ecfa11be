"""The conformance suite of participants: what the saga relies on, whoever stands behind `Participant`.

One list of properties, each with a name, what must hold and why, run by `jiebang participant test` against another
team's service and by our own tests against every participant of ours. `subject.py`: what is tested and how a deviation
is told; `fence.py`, `crossing.py`: the properties of every participant; `signed_http.py`: those of remote ones;
`suite.py`: the list, and its run.
"""
