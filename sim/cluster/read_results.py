"""Read a merged sweep, or the messages of a run, and print what a notebook would plot.

    pip install pyarrow
    python sim/cluster/read_results.py sweep/sweep.parquet entropy_mean_bits
    python sim/cluster/read_results.py out/messages.parquet

CSV files hold the same columns; those are read with the standard library alone.
"""

import csv
import math
import sys


def columns(path):
    """The file as {column: list}, numbers as floats."""
    if path.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pydict()
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))

    def number(text):
        try:
            return float(text)
        except ValueError:
            return text

    return {name: [number(row[name]) for row in rows] for name in (rows[0] if rows else [])}


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    table = columns(sys.argv[1])
    if "entropy_bits" in table:
        values = sorted(table["entropy_bits"])
        # The least value that a share q does not exceed, as in summary.json.
        at = lambda q: values[max(0, math.ceil(q * len(values)) - 1)]
        print(f"{len(values)} messages; entropy p01 {at(.01):.4f} p50 {at(.5):.4f} bits")
        return
    wanted = sys.argv[2] if len(sys.argv) > 2 else "entropy_mean_bits"
    if wanted not in table.get("figure", []):
        sys.exit(f"no figure {wanted}: there are {', '.join(sorted(set(table.get('figure', []))))}")
    names = list(table)
    keys = names[2 : names.index("figure")]
    print(*keys, wanted, "standard_error", sep="\t")
    for row, figure in enumerate(table["figure"]):
        if figure == wanted:
            print(*(table[key][row] for key in keys), table["value"][row], table["standard_error"][row], sep="\t")


if __name__ == "__main__":
    main()
