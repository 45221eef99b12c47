"""Plans of micro-batches: recorded calls, their order, and who runs them."""
