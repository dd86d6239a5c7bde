#!/bin/sh
# Runs benchmarks/gpu.py with a Python that has torch: .venv's, else the machine's own, else a new .venv.
if [ -x .venv/bin/python ] && .venv/bin/python -c "import torch" 2>/dev/null; then
    python=.venv/bin/python
elif python3 -c "import sys, torch; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then
    python=python3
else
    sh tools/python.sh tools/setup.py env || exit
    python=.venv/bin/python
fi
PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m benchmarks.gpu "$@"
