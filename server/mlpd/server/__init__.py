"""The mlpd server: one asyncio process that accepts jobs, runs each in a worker, and serves models."""
