"""Generators in web pages: what a page runs as one file, the kernels in WebAssembly that run it, and the pages."""
