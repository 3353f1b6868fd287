"""Run an ONNX model on an engine that lives in an environment of its own; ``elsewhere.py`` starts this with its Python.

``python worker.py ENGINE FOLDER`` reads ``model.onnx`` and ``z.npy`` in the folder, writes the model's first output to
``out.npy`` and says ``ready``. Each number it then reads on its standard input is a turn of so many calls; it answers
with the CPU and wall seconds they took. It imports nothing of gancompress and nothing that the engine does not bring.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np


def mnn(folder: Path, z: np.ndarray, *options: str):
    """Convert for MNN and load, float32 on one thread."""
    import _tools  # the converter itself: MNN.tools around it runs pip and sends reports
    import MNN.expr as expr
    import MNN.nn

    source, made = str(folder / "model.onnx"), str(folder / "model.mnn")
    command = ["-f", "ONNX", "--modelFile", source, "--MNNModel", made, "--bizCode", "x", *options]
    _tools.mnnconvert(["MNNConvert", *command])
    settings = {"backend": "CPU", "numThread": 1, "precision": "high", "memory": "normal", "power": "normal"}
    manager = MNN.nn.create_runtime_manager((settings,))
    network = MNN.nn.load_module_from_file(made, [], [], runtime_manager=manager)

    def call():
        out = network.forward([expr.const(z, list(z.shape), expr.NCHW)])[0]
        return np.array(expr.convert(out, expr.NCHW).read())

    return call


def deepsparse(folder: Path, z: np.ndarray):
    """DeepSparse uses zeros by itself."""
    from deepsparse import compile_model

    engine = compile_model(str(folder / "model.onnx"), batch_size=len(z), num_cores=1)
    return lambda: engine.run([z])[0]


def main(engine: str, folder: Path, options: list[str]) -> None:
    """Answer until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # converters print
    call = {"mnn": mnn, "deepsparse": deepsparse}[engine](folder, np.load(folder / "z.npy"), *options)
    np.save(folder / "out.npy", call())
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(int(line)):
            call()
        print(time.process_time() - cpu, time.perf_counter() - wall, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
