"""The databases and clearing networks that know a person. One file a participant; all speak `Participant`."""
