"""The network and its training, by hand, written once for NumPy and CuPy.

Shapes read (rows, width). Arrays are allocated when a network, a loss or an optimizer is built; a
training step only writes into them.
"""
