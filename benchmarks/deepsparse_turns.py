"""Time a generator on DeepSparse 1.8 against onnxruntime, in an environment where both are installed.

DeepSparse reached its end of life in 2025 and needs old versions of what the suite itself needs: the suite calls this
file with another interpreter (``DEEPSPARSE_PYTHON``): ``python deepsparse_turns.py MODEL.onnx ROUNDS`` prints CPU and
wall seconds of every turn as JSON. It imports nothing of gancompress.
"""

from __future__ import annotations

import json
import sys
import time

import deepsparse
import numpy as np
import onnxruntime


def main(model: str, rounds: int) -> None:
    """Alternate the two engines on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    z = np.random.default_rng(0).standard_normal(taken.shape).astype(np.float32)
    engine = deepsparse.compile_model(model, batch_size=taken.shape[0], num_cores=1)
    steps = {"onnxruntime": lambda: session.run(None, {taken.name: z}), "deepsparse": lambda: engine.run([z])}
    apart = float(np.abs(steps["onnxruntime"]()[0] - steps["deepsparse"]()[0]).max())
    times = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            cpu, wall = time.process_time(), time.perf_counter()
            steps[name]()
            if turn >= 2:  # the first ones warm up
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    print(json.dumps({"times": times, "apart": apart}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
