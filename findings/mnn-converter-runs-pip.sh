#!/usr/bin/env bash
# MNN 3.6.1: importing its converter runs pip, and not necessarily the pip of the Python that imports it.
#
# Guess before looking: importing a module of an installed wheel changes no installation; what is missing is an ImportError.
# Seen (2026-11-28): MNN.tools.mnnconvert, which the command mnnconvert starts, imports a logger that needs aliyun-log.
# Where that is missing it calls os.system("pip install -U aliyun-log-python-sdk"): whatever pip comes first on PATH installs
# into its own environment. A virtual environment whose bin is not on PATH changes another one, and fails to import
# afterwards, which is caught: nothing is said but "try 'pip install ...'". Where it succeeds, conversions
# are reported to its makers (read in its code, not tried).
# The converter itself is _tools.mnnconvert(["MNNConvert", ...]), which does neither.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "MNN==3.6.1" "numpy==2.4.6"
mkdir "$work/bin"
cat > "$work/bin/pip" <<SH
#!/bin/sh
echo "\$@" >> "$work/asked"
SH
chmod +x "$work/bin/pip"
cd "$work"
PATH="$work/bin:$PATH" venv/bin/python -c "import MNN, _tools; assert _tools.mnnconvert" > said.txt 2>&1
test ! -e asked || { echo "changed: MNN or its converter alone runs pip"; exit 1; }
PATH="$work/bin:$PATH" venv/bin/python -c "import MNN.tools.mnnconvert" > said.txt 2>&1 || { cat said.txt >&2; exit 1; }
test "$(sort -u asked)" = "install -U aliyun-log-python-sdk" || { echo "changed: $(cat asked 2>&1)"; exit 1; }
echo "as seen: importing MNN.tools.mnnconvert ran $(wc -l < asked) times: pip $(sort -u asked)"
