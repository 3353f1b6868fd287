"""Checks that take minutes, outside the default suite: ``python -m tests.soak kill`` and ``python -m tests.soak fuzz``.

A command is a module of this package: its docstring is the help, ``options(parser)`` adds its flags and
``run(options)`` returns the exit code, 0 when nothing failed.
"""
