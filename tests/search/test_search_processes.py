"""Two processes of one search end where one does, each having scored a share."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
from tests.search.test_search import run
from edgekd.search.scorers.diswot import DisWOT

torch.set_num_threads(1)
scored, score = [], DisWOT.score
DisWOT.score = lambda self, point: (scored.append(str(point.genotype)), score(self, point))[1]
out = Path(sys.argv[1])
run(out, latency="2ms", evaluations=24)
(out / f"scored-{os.environ.get('RANK', '0')}").write_text("\\n".join(scored))
"""


def launch(out: Path, *launcher: str) -> dict:
    script = out.parent / "search_script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, *launcher, str(script), str(out)]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    record = json.loads((out / "search.json").read_text())
    return {key: value for key, value in record.items() if key != "seconds"}


def test_two_processes_share_the_scoring_and_agree_with_one(tmp_path):
    alone = launch(tmp_path / "one")
    both = launch(tmp_path / "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert both == alone
    shares = [set((tmp_path / "two" / f"scored-{rank}").read_text().split("\n")) for rank in (0, 1)]
    assert not shares[0] & shares[1]
    assert abs(len(shares[0]) - len(shares[1])) <= 4
    assert shares[0] | shares[1] == set((tmp_path / "one" / "scored-0").read_text().split("\n"))
