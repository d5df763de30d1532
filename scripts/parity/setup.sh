# Sourced by the parity scripts, in the repository's root: `$python` with the packages of scripts/golden/requirements.txt
# (installed from PyPI into scripts/.venv if an import fails), and `build EXAMPLE`, which sets `$ours` to its path.
# Set `modules` to the imports that are needed, separated by commas.
python=${PYTHON:-scripts/.venv/bin/python}
[ -x "$python" ] || python3 -m venv scripts/.venv
"$python" -c "import $modules" 2>/dev/null || "$python" -m pip install -q -r scripts/golden/requirements.txt

build() {
  cargo build --release --quiet --example "$1"
  ours="${CARGO_TARGET_DIR:-target}/release/examples/$1"
}
