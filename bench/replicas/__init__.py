"""Replicas: answers, load, and going over to the next checkpoint.

- `serving`: What a replica costs
- `serving_client`: A client that costs little
- `serving_load`: Requests at a stated rate, whether they are answered or not
- `serving_model`: A model of a stated size, trained by nobody, as checkpoints in a folder
- `serving_peers`: Other software behind the replica's HTTP server
- `serving_site`: The process that `bench.serving` asks
- `serving_sites`: Processes of `bench.replicas.serving_site`, started and ended
- `serving_under_load`: A replica at a steady rate while checkpoints land, and above its capacity
- `swap`: What a new checkpoint costs a replica, by rows that changed and rows that it holds
"""
