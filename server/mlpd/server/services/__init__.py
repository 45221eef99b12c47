"""The RPCs: each turns a request into one call and the answer into a response."""
