"""Training jobs: from a request to a spec, the queue, their states and events."""
