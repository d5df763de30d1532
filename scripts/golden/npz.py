"""Feature statistics as numpy writes them: either byte order, either order of axes, every floating-point type.

Run: python scripts/golden/npz.py (numpy is all that it needs)
Writes crates/spiking-diffusion-metrics/tests/golden/npz/*.npz.

`sigma` is symmetric only to 2^-21, within what is taken for rounding, so that a transposed one can be told; all values are
exact in every type but `half`, where it is symmetric.
"""

from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "crates/spiking-diffusion-metrics/tests/golden/npz"

MU = np.array([1.5, -2.0, 0.25])
SIGMA = np.array([[2.0, 0.25, -0.5], [0.25 + 2**-21, 1.0, 0.125], [-0.5, 0.125, 4.0]])


def write(name, mu, sigma, save=np.savez, **more):
    path = OUT / f"{name}.npz"
    save(path, mu=mu, sigma=sigma, **more)
    with np.load(path, allow_pickle=True) as back:
        print(name, back["mu"].dtype.str, back["sigma"].dtype.str, back["sigma"].flags["F_CONTIGUOUS"])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    fortran = np.asfortranarray(SIGMA)
    write("fortran", MU, fortran)
    write("big_endian", MU.astype(">f8"), SIGMA.astype(">f8"), count=np.array(7, ">i8"))
    write("big_endian_fortran_single", MU.astype(">f4"), fortran.astype(">f4"), np.savez_compressed)
    write("single", MU.astype("<f4"), fortran.astype("<f4"), count=np.uint16(7))
    write("half", MU.astype(">f2"), (SIGMA + SIGMA.T).astype("<f2") / 2, count=np.float64(7))
    # What the format leaves open, and what are no numbers.
    write("long_double", MU, SIGMA.astype(np.longdouble))
    write("complex", MU, SIGMA.astype(complex))
    write("objects", MU, SIGMA.astype(object))
    write("text", MU.astype(str), SIGMA)
    write("records", np.array([(1.5,), (-2.0,)], [("x", "<f8")]), SIGMA)


if __name__ == "__main__":
    main()
