"""Replicas: follow published checkpoints and answer requests.

- `http_server`: the HTTP server of a replica
- `replica`: which checkpoint a replica should hold
- `replica_client`: A replica as a library
- `request`: A prediction request
- `serving`: A checkpoint as something that answers
"""
