#!/bin/sh
# Create a virtual environment and install pgdoc into it with one extra:
#   .ci/install_python.sh FOLDER demo|tests|examples|dev
set -eu
venv=$1 extra=$2 python=${PYTHON:-python3}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

if ! command -v "$python" >/dev/null || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if can_install; then
        echo "+ apt-get update && apt-get install -y python3-venv"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    else
        echo "pgdoc needs Python 3.11 or newer with venv; on Debian, run: sudo apt-get install -y python3-venv" >&2
        exit 1
    fi
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "pgdoc needs Python 3.11 or newer, but $python is $("$python" -V 2>&1): choose another with PYTHON=python3.13" >&2
    exit 1
fi

[ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
echo "installing pgdoc[$extra] into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
case $extra in # each extra includes the earlier ones
    dev) touch "$venv/.demo" "$venv/.tests" "$venv/.examples" "$venv/.dev" ;;
    examples) touch "$venv/.demo" "$venv/.tests" "$venv/.examples" ;;
    tests) touch "$venv/.demo" "$venv/.tests" ;;
    *) touch "$venv/.$extra" ;;
esac
