"""The C++ source of the kernels and, once built, the library (``_sparse.*``)."""
