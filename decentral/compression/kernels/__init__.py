"""Triton kernels for vectors on a GPU, with the compiled passes for main memory as their reference: the same messages.

They have been run in Triton's interpreter, where the tests compare every byte with those passes, and compiled for
compute capability 9.0; they have not been run on a GPU, and nothing is known of their speed. Modules here import
triton, so nothing outside imports them before it has such a vector. They take float32 alone.
"""
