#!/bin/sh
# Runs a tool with a Python that Infero can use: $PYTHON, else the first that fits.
#   sh tools/python.sh tools/setup.py env
say() { printf '%s\n' "$1" >&2; exit 1; }

case "$(uname -s)" in
    MINGW* | MSYS* | CYGWIN*) say "On Windows, run Infero inside WSL2: https://learn.microsoft.com/windows/wsl/install" ;;
esac

fits() { "$1" -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $2))" >/dev/null 2>&1; }

install="install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12; or python.org), or name one: make PYTHON=/path/to/python3.12"

if [ -n "$PYTHON" ]; then
    fits "$PYTHON" 99 && exec "$PYTHON" "$@"
    say "PYTHON=$PYTHON is no Python 3.11 or newer ($("$PYTHON" --version 2>&1 | head -n 1)): $install"
fi
for newest in 14 99; do
    for name in python3 python3.13 python3.12 python3.11 python3.14 python; do
        fits "$name" "$newest" && exec "$name" "$@"
    done
done
found=$(python3 --version 2>/dev/null | head -n 1)
say "Infero needs Python 3.11 or newer, and this machine has ${found:-none}: $install"
