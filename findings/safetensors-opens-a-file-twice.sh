#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0: reading a file for torch opens its path twice.
#
# Guess before looking: the file is opened once and mapped once, so that a reader who has it open sees one file whatever
# happens to its name, as with any descriptor.
# Seen (2026-11-28): safe_open(path, framework="pt") reads the header through a first descriptor; the tensors come from a
# second mapping of the same *path*, made through torch's storage. When the name is given to another file in between
# (write aside, then rename: what careful writers do), header and values belong to two different files. Every tensor of
# the old file has the name and the shape of the old one and the numbers of the new one, and nothing is raised.
# With framework="np" there is one descriptor and the old file is seen whole.
# We met it as a cache that several processes read while one replaces it; reading all bytes once and parsing those
# (safetensors.torch.load) is the way out, and what gancompress does.
#
# The rename below is put exactly into the gap by wrapping the torch function that makes the second mapping.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "torch==2.13.0" "safetensors==0.8.0" "numpy==2.4.6"
cd "$work"
cat > read.py <<'PY'
import os

import numpy
import torch
from safetensors import safe_open
from safetensors.torch import save_file

save_file({"w": torch.zeros(4)}, "new.safetensors")
torch_mapping = torch.UntypedStorage.from_file
mapped = []


def mapping_after_a_rename(*arguments, **keywords):
    mapped.append(arguments)
    os.replace("replacement.safetensors", "new.safetensors")
    return torch_mapping(*arguments, **keywords)


def read(framework):
    save_file({"w": torch.zeros(4)}, "new.safetensors")
    save_file({"w": torch.full((4,), 9.0)}, "replacement.safetensors")
    with safe_open("new.safetensors", framework=framework) as opened:
        if framework == "np":  # the same moment: the file is open, no tensor has been read
            os.replace("replacement.safetensors", "new.safetensors")
        return [float(x) for x in opened.get_tensor("w")]


torch.UntypedStorage.from_file = mapping_after_a_rename
print("np:", read("np"))
print("pt:", read("pt"), "mapped by path:", bool(mapped))
PY
"$work/venv/bin/python" read.py | tee seen.txt
diff seen.txt - <<'EXPECTED'
np: [0.0, 0.0, 0.0, 0.0]
pt: [9.0, 9.0, 9.0, 9.0] mapped by path: True
EXPECTED
echo "still so"
