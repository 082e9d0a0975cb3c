"""Make runs.db.example by really training its grid: python docs/make_example.py

The example is one plain file in rollback-journal mode, so that it can be read from a read-only place, too.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRID = ROOT / "experiments" / "optimizers.toml"
EXAMPLE = ROOT / "runs.db.example"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder, "runs.db")
        subprocess.run([sys.executable, "-m", "labbench", "--db", str(db), "run", str(GRID)], check=True)
        connection = sqlite3.connect(db)
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute("UPDATE runs SET host = 'example'")  # whose machine it was is nobody's business
        connection.commit()
        connection.execute("VACUUM")
        connection.close()
        EXAMPLE.write_bytes(db.read_bytes())
    print(f"{EXAMPLE.name}: {EXAMPLE.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
